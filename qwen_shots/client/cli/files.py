"""Writes what a command makes."""

from __future__ import annotations

import os
from pathlib import Path

from qwen_shots.client.errors import CannotStore


def write_whole(file: Path, content: bytes) -> None:
    """Write all of it or nothing: what stood there before goes only when the new file is complete.

    Raises:
        CannotStore: no space, no permission, no folder.
    """
    half = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        half.write_bytes(content)
        half.replace(file)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise CannotStore(f"{file} can't be written ({error.strerror})") from None
