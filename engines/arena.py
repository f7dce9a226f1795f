"""Memory that the server shares with its engine processes: pictures lie in it from when they are ready until answered.

Through a pipe a full batch, 200 MB of pictures, goes in a thousand small pieces. For each of them both processes need
their interpreter's lock, which their other threads want as well, so a busy server took longer to hand a batch over than
the GPU was busy with the rest of the last one. From here the engine takes it without a word (`engines.messages`).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from collections import deque
from multiprocessing import reduction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import Picture

Place = tuple[int, int]
"""Where bytes lie in the shared memory: the first one, and how many."""


class Arena:
    """The server's side. A process that is started with it gets an `ArenaReader`.

    Its memory stands in no file system and goes with the last process that has it. Where a system gives none (all but
    Linux), nothing is ever kept, and pictures go through the pipe.
    """

    def __init__(self) -> None:
        self._file = _nameless_file()
        self._memory: mmap.mmap | None = None
        self._address = 0
        self._slot_bytes = 0
        self._lasting = 0
        self._first: deque[int] = deque()
        self._others: deque[int] = deque()

    def open(self, slots: int, picture_bytes: int, lasting: int) -> None:
        """Make room. The system gives the memory when a slot is first used.

        Args:
            slots: pictures that it holds at most.
            picture_bytes: of the largest picture.
            lasting: slots that are used first and keep their memory; others give theirs back as soon as they are free.
        """
        if self._file is None:
            return
        pages = -(-picture_bytes // mmap.PAGESIZE)
        self._slot_bytes = pages * mmap.PAGESIZE
        os.ftruncate(self._file, slots * self._slot_bytes)
        self._memory = mmap.mmap(self._file, slots * self._slot_bytes)
        self._address = _address(np.frombuffer(self._memory, np.uint8))
        self._lasting = lasting
        # The one that was left last is taken first: its memory is warm, and that of the others may stay unused.
        self._first.extend(reversed(range(min(lasting, slots))))
        self._others.extend(reversed(range(lasting, slots)))

    def keep(self, picture: Picture) -> Picture:
        """A copy of the picture in the shared memory, until nobody holds it any more; itself where there is no room.

        May be called on any thread.
        """
        if self._memory is None or not 0 < picture.nbytes <= self._slot_bytes:
            return picture
        try:
            slot = self._first.pop() if self._first else self._others.pop()
        except IndexError:
            return picture
        flat = np.frombuffer(self._memory, np.uint8, picture.size, slot * self._slot_bytes)
        weakref.finalize(flat, self._leave, slot).atexit = False  # every view of it holds it
        kept = flat.reshape(picture.shape)
        np.copyto(kept, picture)
        return kept

    def _leave(self, slot: int) -> None:
        if slot < self._lasting:
            self._first.append(slot)
            return
        assert self._memory is not None
        with contextlib.suppress(OSError):  # some sandboxes can't; it is then used again later
            self._memory.madvise(mmap.MADV_REMOVE, slot * self._slot_bytes, self._slot_bytes)
        self._others.append(slot)

    def find(self, content: memoryview) -> Place | None:
        """Where these bytes lie; None where they lie elsewhere."""
        if self._memory is None or not content.nbytes:
            return None
        first = _address(np.frombuffer(content, np.uint8)) - self._address
        return (first, content.nbytes) if 0 <= first < len(self._memory) else None

    def close(self) -> None:
        """No further process can be started with it. What is kept stays until nobody holds it."""
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def __reduce__(self) -> tuple[type[ArenaReader], tuple[Any]]:
        return ArenaReader, (None if self._file is None else reduction.DupFd(self._file),)


class ArenaReader:
    """An engine process's side. Nothing in it is ever written there."""

    def __init__(self, duplicate: Any) -> None:
        self._file: int | None = None if duplicate is None else duplicate.detach()
        self._memory: mmap.mmap | None = None

    def at(self, place: Place) -> memoryview:
        """The bytes there."""
        if self._memory is None:
            assert self._file is not None, "nothing is kept without shared memory"
            # As a whole, which it has been since before the first picture. Writable, for torch takes nothing else.
            self._memory = mmap.mmap(self._file, 0)
            os.close(self._file)
        first, count = place
        return memoryview(self._memory)[first : first + count]


def _nameless_file() -> int | None:
    if not hasattr(os, "memfd_create"):
        return None
    with contextlib.suppress(OSError):
        return os.memfd_create("pictures")
    return None


def _address(content: NDArray[np.uint8]) -> int:
    address: int = content.__array_interface__["data"][0]
    return address
