"""Whether an engine fails every shot, judged by its answers alone."""

from __future__ import annotations

from collections.abc import Sequence

from engines.base import ShotPictures
from engines.stations import Answer
from qwen_shots.errors import QwenShotsError

# So many batches in a row without one good answer, each with a shot that the others did not have: it is the engine.
MOST_FAILED_BATCHES = 3
# Every so many pixels in each direction tell one shot from another.
STEP = 16


class FailureStreak:
    """The batches in a row of which every shot failed.

    A client may send a shot that fails again and again, so a batch counts only where it brings another shot.
    """

    def __init__(self) -> None:
        self._batches = 0
        self._shots: set[int] = set()

    @property
    def begun(self) -> bool:
        """Whether the last batch failed."""
        return self._batches > 0

    @property
    def hopeless(self) -> bool:
        """Whether the engine is to blame, and not the shots."""
        return self._batches >= MOST_FAILED_BATCHES

    def note(self, shots: Sequence[ShotPictures], answers: Sequence[Answer]) -> None:
        """Learn from a batch."""
        if not all(isinstance(answer, QwenShotsError) for answer in answers):
            self.end()
            return
        seen = set(map(_print_of, shots))
        self._batches += not seen <= self._shots
        self._shots |= seen

    def end(self) -> None:
        """Start over: the engine has proved that it works."""
        self._batches = 0
        self._shots.clear()


def _print_of(shot: ShotPictures) -> int:
    return hash(tuple((picture.shape, picture[::STEP, ::STEP].tobytes()) for picture in shot.pictures))
