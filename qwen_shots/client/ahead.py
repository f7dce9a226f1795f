"""Work done ahead of whoever asks for it, by threads, in bounded space: the joints of the pipeline."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

Item = TypeVar("Item")

CLOSE_SECONDS = 5.0


class Ahead(Iterator[Item], Generic[Item]):
    """Iterators, each run by a thread of its own, whose items wait here until they are taken.

    Several threads may take. When a source fails, the others go on; the failure is raised when all have ended and
    their items were taken.

    Args:
        sources: what to run.
        limit: how many items may wait; a source that has more stands still.
    """

    def __init__(self, sources: Sequence[Iterable[Item]], limit: int) -> None:
        self._limit = limit
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._running = len(sources)
        self._failure: Exception | None = None
        self._closed = False
        # Daemons: a thread that waits for a dead server must not keep the program from ending.
        self._threads = [threading.Thread(target=self._run, args=(source,), daemon=True) for source in sources]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __next__(self) -> Item:
        taken = self.take(1)
        if not taken:
            raise StopIteration
        return taken[0]

    @property
    def closed(self) -> bool:
        """Whether nobody wants anything more."""
        return self._closed

    def take(self, most: int) -> list[Item]:
        """Wait for one item, and take up to so many of those that are there.

        Returns:
            At least one item; none at the end.

        Raises:
            Exception: as a source did.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or not self._running or self._closed)
            if not self._items and self._failure and not self._closed:
                raise self._failure
            return self._pop(most)

    def rest(self, seconds: float) -> Iterator[Item]:
        """What still comes until the sources end, for at most so long. Never raises."""
        deadline = time.monotonic() + seconds
        while True:
            with self._changed:
                left = deadline - time.monotonic()
                self._changed.wait_for(lambda: self._items or not self._running, timeout=max(0.0, left))
                taken = self._pop(len(self._items))
            if not taken:
                return
            yield from taken

    def close(self) -> None:
        """Let the sources end at their next item."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait a little for the threads of a closed one to end."""
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _pop(self, most: int) -> list[Item]:
        taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
        self._changed.notify_all()
        return taken

    def _run(self, source: Iterable[Item]) -> None:
        failure = None
        try:
            for item in source:
                if not self._put(item):
                    break
        except Exception as error:  # raised again where the items are taken
            failure = error
        with self._changed:
            self._running -= 1
            self._failure = self._failure or failure
            self._changed.notify_all()

    def _put(self, item: Item) -> bool:
        """Whether more is wanted. What is done already is kept even then: `rest` may ask for it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._limit or self._closed)
            self._items.append(item)
            self._changed.notify_all()
            return not self._closed


@dataclass(frozen=True, slots=True)
class _End:
    failure: Exception | None


class Aside(Iterator[Item], Generic[Item]):
    """An iterator that a thread of its own runs to the end, whether anybody takes its items or not.

    Whoever takes holds no lock that the thread needs: Python raises Ctrl-C in the main thread between any two steps,
    also where a lock was just taken and nothing is there yet that lets go of it.

    Args:
        source: what to run; its items should be few or small.
    """

    def __init__(self, source: Iterable[Item]) -> None:
        self._items: SimpleQueue[Item | _End] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(source,), daemon=True)
        self._thread.start()

    def __next__(self) -> Item:
        item = self._items.get()
        if isinstance(item, _End):
            self._items.put(item)  # for who asks again
            raise item.failure or StopIteration
        return item

    def join(self) -> None:
        """Wait a little for the thread to end."""
        self._thread.join(CLOSE_SECONDS)

    def _run(self, source: Iterable[Item]) -> None:
        failure = None
        try:
            for item in source:
                self._items.put(item)
        except Exception as error:  # raised again where the items are taken
            failure = error
        self._items.put(_End(failure))
