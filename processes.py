"""What processes that others made have in common: they end with their parent, and have a name."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path


def end_with_parent(end: Callable[[], object]) -> None:
    """Call `end`, on a thread, when the process that spawned this one is gone, be it by SIGKILL."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was not made by multiprocessing"

    def wait() -> None:
        parent.join()
        end()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def name_process(name: str) -> None:
    """Name this process for `ps` and `top`, in 15 letters at most; nothing happens where that can't be done."""
    with contextlib.suppress(OSError):  # Linux can
        Path("/proc/self/comm").write_text(name, encoding="ascii")
