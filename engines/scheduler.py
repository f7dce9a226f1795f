"""The queue between requests and engine processes: the shots of all requests become batches."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from engines.base import ShotPictures, ShotReading
from engines.worker import Answer
from qwen_shots.errors import EngineLost, QueueFull, QwenShotsError

# A shot that was in hand when an engine died is tried once more; one that kills two engines is to blame itself.
MAX_TRIES = 2

# Weight of the newest measurement in the moving average of seconds a shot.
SMOOTHING = 0.2
SECONDS_A_SHOT_AT_FIRST = 0.5
MAX_RETRY_AFTER = 60


@dataclass(slots=True, eq=False)
class Pending:
    """A shot that waits for its answer. `tokens` is what its pictures cost in a batch."""

    shot: ShotPictures
    tokens: int
    answer: asyncio.Future[ShotReading]
    tries: int = field(default=0)

    def settle(self, answer: Answer) -> None:
        """Give the waiter its answer; nothing to do where it has gone away."""
        if self.answer.done():
            return
        if isinstance(answer, QwenShotsError):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class ShotQueue:
    """First come, first served; a batch is filled up to a budget of tokens.

    Args:
        max_shots: shots that may wait.
    """

    def __init__(self, max_shots: int) -> None:
        self._max_shots = max_shots
        self._waiting: deque[Pending] = deque()
        self._arrived = asyncio.Event()
        self._seconds_a_shot = SECONDS_A_SHOT_AT_FIRST

    def __len__(self) -> int:
        """Shots that wait for an engine."""
        return len(self._waiting)

    @property
    def retry_after(self) -> int:
        """Seconds until the shots that wait now will be through, at the measured rate."""
        return min(MAX_RETRY_AFTER, max(1, math.ceil(len(self._waiting) * self._seconds_a_shot)))

    def put(self, shot: ShotPictures, tokens: int) -> asyncio.Future[ShotReading]:
        """Queue a shot.

        Raises:
            QueueFull: the queue holds as many shots as it may.
        """
        if len(self._waiting) >= self._max_shots:
            raise QueueFull(
                f"{self._max_shots} shots are waiting, which is the most; try again later", self.retry_after
            )
        answer: asyncio.Future[ShotReading] = asyncio.get_running_loop().create_future()
        self._waiting.append(Pending(shot, tokens, answer))
        self._arrived.set()
        return answer

    async def take(self, budget: int) -> list[Pending]:
        """Wait for shots, then take as many as the budget of tokens holds, at least one."""
        while True:
            if batch := self._take_now(budget):
                return batch
            self._arrived.clear()
            await self._arrived.wait()

    def _take_now(self, budget: int) -> list[Pending]:
        batch: list[Pending] = []
        while self._waiting:
            head = self._waiting[0]
            if head.answer.done():  # its client went away
                self._waiting.popleft()
                continue
            if batch and head.tokens > budget:
                break
            budget -= head.tokens
            batch.append(self._waiting.popleft())
        return batch

    def give_back(self, batch: Iterable[Pending]) -> None:
        """Put shots of a lost engine in front again, in their order; those that were tried before get the error."""
        again = []
        for pending in batch:
            pending.tries += 1
            if pending.tries >= MAX_TRIES:
                pending.settle(EngineLost("the engine stopped twice while it held the shot"))
            else:
                again.append(pending)
        self._waiting.extendleft(reversed(again))
        self._arrived.set()

    def fail_all(self, error: QwenShotsError) -> None:
        """Answer everybody who waits with an error."""
        while self._waiting:
            self._waiting.popleft().settle(error)

    def measured(self, shots: int, seconds: float) -> None:
        """Learn from a batch that took `seconds`."""
        self._seconds_a_shot += SMOOTHING * (seconds / shots - self._seconds_a_shot)
