"""What runs in a folder, as the system tells it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from tests.helpers import PATIENCE_SECONDS

# Python's own helper beside a process that has children. It notices by itself that they are all gone, a moment later.
HELPER = "multiprocessing.resource_tracker"


def processes_in(folder: Path, word: str = "", *, helpers: bool = False) -> set[int]:
    """Ids of the processes whose working directory is the folder, and whose command line holds the word."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked, or it is another user's
            if (entry / "cwd").readlink() == folder and is_wanted(command_line(entry), word, helpers=helpers):
                found.add(int(entry.name))
    return found


def command_line(entry: Path) -> str:
    """Of a process, by its folder in /proc; empty while it ends."""
    return (entry / "cmdline").read_text().replace("\0", " ")


def is_wanted(command: str, word: str = "", *, helpers: bool = False) -> bool:
    """Whether this is the command line of a process that runs, with the word, and of a helper only if so told."""
    return bool(command) and word in command and (helpers or HELPER not in command)


def wait_for(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def wait_until_nothing_runs(folder: Path) -> None:
    """Wait until no process has the folder as its working directory."""
    wait_for(lambda: not processes_in(folder, helpers=True))
