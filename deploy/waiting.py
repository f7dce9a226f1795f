"""What an ingress has in hand: how much, how much it may be, and how long it will take."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

from engines.scheduler import MAX_RETRY_AFTER, SECONDS_A_SHOT_AT_FIRST, SMOOTHING
from qwen_shots.errors import QueueFull


class Waiting:
    """Counts the shots that were sent to replicas and are not answered.

    Args:
        max_shots: shots that may be in hand.
        max_tokens: tokens of pictures that may be in hand; the shot that reaches it is still taken.
    """

    def __init__(self, max_shots: int, max_tokens: int) -> None:
        self._max_shots = max_shots
        self._max_tokens = max_tokens
        self._tokens = 0
        self.shots = 0
        self._last = 0.0
        self._seconds_a_shot = SECONDS_A_SHOT_AT_FIRST

    @property
    def retry_after(self) -> int:
        """Seconds until the shots in hand will be through, at the measured rate of answers."""
        return min(MAX_RETRY_AFTER, max(1, math.ceil(self.shots * self._seconds_a_shot)))

    @property
    def full(self) -> QueueFull | None:
        """Why no further shot can be taken; None while one can."""
        if self.shots >= self._max_shots:
            limit = f"{self._max_shots} shots are waiting, which is the most (server.max_queue_shots)"
        elif self._tokens >= self._max_tokens:
            limit = f"shots of {self._max_tokens} tokens are waiting, which is the most (server.max_queue_tokens)"
        else:
            return None
        return QueueFull(f"{limit}; try again later", self.retry_after)

    @contextlib.contextmanager
    def one(self, tokens: int) -> Iterator[None]:
        """Have one more shot in hand.

        Raises:
            QueueFull: there is no room for it.
        """
        if full := self.full:
            raise full
        if not self.shots:
            self._last = time.monotonic()
        self.shots += 1
        self._tokens += tokens
        try:
            yield
            self._measure()
        finally:
            self.shots -= 1
            self._tokens -= tokens

    def _measure(self) -> None:
        """Time between two answers while there is work is what a shot takes, however many replicas share it."""
        now = time.monotonic()
        self._seconds_a_shot += SMOOTHING * (now - self._last - self._seconds_a_shot)
        self._last = now
