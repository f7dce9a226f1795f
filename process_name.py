"""What `ps` and `top` call a process."""

from __future__ import annotations

import contextlib
from pathlib import Path


def name_process(name: str) -> None:
    """Name this process, in 15 letters at most; nothing happens where that can't be done (Linux can)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")
