"""How much memory the pictures that are being decoded may take together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

BYTES_AT_ONCE = 384 * 2**20  # of a picture at 8K, as large as it gets, two and a half


class DecodeBudget:
    """Makes threads wait in turn until there is room for what they decode.

    Args:
        total: bytes for all together. One picture that takes more is decoded alone.
    """

    def __init__(self, total: int = BYTES_AT_ONCE) -> None:
        self._total = self._free = total
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait for so many bytes, and hold them meanwhile."""
        size = min(size, self._total)
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            # In turn: a large one would wait for ever behind a stream of small ones.
            self._changed.wait_for(lambda: self._waiting[0] is turn and self._free >= size)
            self._waiting.popleft()
            self._free -= size
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()
