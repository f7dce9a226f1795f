"""Writes what a command makes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from qwen_shots.client.errors import CannotStore


def write_whole(file: Path, content: bytes) -> None:
    """Write all of it or nothing: what stood there before goes only when the new file is complete.

    Raises:
        CannotStore: no space, no permission, no folder.
    """
    if not file.name:
        raise CannotStore(f"{file} can't be written (it is a folder)")
    half = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        half.write_bytes(content)
        half.replace(file)
    except OSError as error:
        raise CannotStore(f"{file} can't be written ({error.strerror})") from None
    finally:
        with suppress(OSError):  # as a rule it is gone
            half.unlink()
