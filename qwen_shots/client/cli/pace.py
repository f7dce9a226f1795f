"""How fast a run goes and how long it takes still."""

from __future__ import annotations

import time
from typing import Protocol

from rich.progress import ProgressColumn, Task
from rich.text import Text


class Work(Protocol):
    """What a pace is of."""

    @property
    def expected(self) -> int:
        """How many shots are known."""

    @property
    def share_known(self) -> float:
        """Of how much of the film, 0..1."""


class Pace:
    """Shots done, rate, and time left. While shots are being found, their number is reckoned from those found so far.

    Args:
        work: what is being done.

    Attributes:
        done: how many shots are answered; counted by the user.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._began = time.monotonic()
        self.done = 0

    @property
    def total(self) -> int:
        """How many shots it will be."""
        share = self._work.share_known
        return max(self._work.expected, round(self._work.expected / share)) if share else self._work.expected

    def text(self) -> str:
        """`12 of about 340 shots, 3.2 a second, 1:43 left`."""
        total = self.total
        if not total:
            return "finding the first shot"
        shots = f"{self.done} of {'about ' if self._work.share_known < 1 else ''}{total} shots"
        if not self.done:
            return shots
        rate = self.done / max(time.monotonic() - self._began, 1e-9)
        return f"{shots}, {rate:.1f} a second, {clock((total - self.done) / rate)} left"


class PaceColumn(ProgressColumn):
    """A pace beside a bar, true whenever the bar is drawn."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        """The pace in words."""
        return Text(self._pace.text())


def clock(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
