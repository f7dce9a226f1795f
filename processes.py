"""What all processes of the server need: an end with their parent, a name, and how many cores they may use."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
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


def usable_cores() -> int:
    """Cores that this process may use: a container or `taskset` may give it fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
