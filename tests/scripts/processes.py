"""What runs in a folder, as the system tells it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_SECONDS = 30.0


def processes_in(folder: Path, word: str = "") -> set[int]:
    """Ids of the processes whose working directory is the folder, and whose command line holds the word."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked, or it is another user's
            if (entry / "cwd").readlink() == folder and word in (entry / "cmdline").read_text().replace("\0", " "):
                found.add(int(entry.name))
    return found


def wait_for(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def wait_until_nothing_runs(folder: Path) -> None:
    """Wait until no process has the folder as its working directory."""
    wait_for(lambda: not processes_in(folder))
