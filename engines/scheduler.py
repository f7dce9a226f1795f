"""The queue between requests and engine processes: the shots of all requests become batches."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engines.base import NoObserver, Observer, ShotPictures, ShotReading
from engines.stations import Answer
from qwen_shots.errors import EngineLost, QueueFull, QwenShotsError

# A shot that was under way when an engine died is tried once more, alone; one that kills two is to blame itself.
MAX_TRIES = 2

# Weight of the newest measurement in the moving average of seconds a shot.
SMOOTHING = 0.2
SECONDS_A_SHOT_AT_FIRST = 0.5
MAX_RETRY_AFTER = 60


@dataclass(slots=True, eq=False)
class Pending:
    """A shot that waits for its answer, since `since` on the monotonic clock.

    `tokens` is what it costs in a batch, `number` says how many came before it.
    """

    shot: ShotPictures
    tokens: int
    number: int
    answer: asyncio.Future[ShotReading]
    tries: int = field(default=0)
    since: float = field(default_factory=time.monotonic)

    @property
    def suspect(self) -> bool:
        """Whether it, or one beside it, may have ended an engine: it goes alone."""
        return self.tries > 0

    def settle(self, answer: Answer) -> None:
        """Give the waiter its answer; nothing to do where it has gone away."""
        if self.answer.done():
            return
        if isinstance(answer, QwenShotsError):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class ShotQueue:
    """The earliest deadline goes first, of equal ones who came first; a batch is filled up to a budget of tokens.

    Args:
        max_shots: shots that may wait.
        max_tokens: tokens that may wait; the shot that reaches it is still taken.
        observer: is told how long shots wait and what batches take.

    Attributes:
        servers: engines that take shots now; the time that others have to wait is shared by them.
    """

    def __init__(self, max_shots: int, max_tokens: int, observer: Observer | None = None) -> None:
        self._observer = observer or NoObserver()
        self._max_shots = max_shots
        self._max_tokens = max_tokens
        self._tokens = 0
        self._waiting: list[Pending] = []  # sorted by `_urgency`
        self._numbers = itertools.count()
        self._arrived = asyncio.Event()
        self._seconds_a_shot = SECONDS_A_SHOT_AT_FIRST
        self.servers = 1

    def __len__(self) -> int:
        """Shots that wait for an engine."""
        return len(self._waiting)

    @property
    def retry_after(self) -> int:
        """Seconds until the shots that wait now will be through, at the measured rate."""
        seconds = len(self._waiting) * self._seconds_a_shot / max(1, self.servers)
        return min(MAX_RETRY_AFTER, max(1, math.ceil(seconds)))

    @property
    def full(self) -> QueueFull | None:
        """Why no further shot can wait; None while one can."""
        if len(self._waiting) >= self._max_shots:
            limit = f"{self._max_shots} shots are waiting, which is the most (server.max_queue_shots)"
        elif self._tokens >= self._max_tokens:
            limit = f"shots of {self._max_tokens} tokens are waiting, which is the most (server.max_queue_tokens)"
        else:
            return None
        return QueueFull(f"{limit}; try again later", self.retry_after)

    def put(self, shot: ShotPictures, tokens: int) -> asyncio.Future[ShotReading]:
        """Queue a shot. When its answer is cancelled, it leaves the queue.

        Raises:
            QueueFull: the queue holds as many shots or tokens as it may.
        """
        if full := self.full:
            raise full
        answer: asyncio.Future[ShotReading] = asyncio.get_running_loop().create_future()
        pending = Pending(shot, tokens, next(self._numbers), answer)
        answer.add_done_callback(lambda _: self._leave(pending))
        self._join(pending)
        self._arrived.set()
        return answer

    async def take(self, budget: int) -> list[Pending]:
        """Wait for shots, then take as many as the budget of tokens holds, at least one; a suspect by itself.

        No engine takes more than its share of what waits, or it would look at a large batch while the others have
        nothing to do: at the end of every film, and whenever fewer shots are in hand than fill all engines.
        """
        while True:
            if batch := self._take_now(budget):
                return batch
            self._arrived.clear()
            await self._arrived.wait()

    def _take_now(self, budget: int) -> list[Pending]:
        batch: list[Pending] = []
        rest = self._tokens - self._tokens / max(1, self.servers)
        while self._waiting:
            pending = self._waiting[0]
            gone = pending.answer.done()  # its client went away just now
            enough = pending.suspect or pending.tokens > budget or self._tokens <= rest
            if batch and not gone and enough:
                break
            self._leave(pending)
            if not gone:
                budget = 0 if pending.suspect else budget - pending.tokens
                self._observer.waited(time.monotonic() - pending.since)
                batch.append(pending)
        return batch

    def give_back(self, batch: Sequence[Pending]) -> None:
        """Let shots that a lost engine had under way wait again, each in its old place; suspects get the error."""
        for pending in batch:
            pending.tries += 1
            if pending.tries >= MAX_TRIES:
                pending.settle(EngineLost("the engine stopped twice while it held the shot"))
        self.put_back(batch)

    def put_back(self, batch: Iterable[Pending]) -> None:
        """Let shots that nobody has answered wait again, each in its old place, without counting it as a try."""
        for pending in batch:
            if not pending.answer.done():
                pending.since = time.monotonic()
                self._join(pending)
        self._arrived.set()

    def fail_all(self, error: QwenShotsError) -> None:
        """Answer everybody who waits with an error."""
        for pending in list(self._waiting):
            self._leave(pending)
            pending.settle(error)

    def _join(self, pending: Pending) -> None:
        insort(self._waiting, pending, key=_urgency)
        self._tokens += pending.tokens

    def _leave(self, pending: Pending) -> None:
        place = bisect_left(self._waiting, _urgency(pending), key=_urgency)
        if self._waiting[place : place + 1] == [pending]:
            del self._waiting[place]
            self._tokens -= pending.tokens

    def measured(self, shots: int, tokens: int, seconds: float) -> None:
        """Learn from a batch that took `seconds`."""
        self._observer.looked(shots, tokens, seconds)
        self._seconds_a_shot += SMOOTHING * (seconds / shots - self._seconds_a_shot)


def _urgency(pending: Pending) -> tuple[float, int]:
    return pending.shot.deadline, pending.number
