"""A process that another one made should not outlive it, however that one ends."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable


def end_with_parent(end: Callable[[], object]) -> None:
    """Call `end`, on a thread, when the process that spawned this one is gone, be it by SIGKILL."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was not made by multiprocessing"

    def wait() -> None:
        parent.join()
        end()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
