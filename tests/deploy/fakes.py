"""Engines that cost a known time, for what only the way to the engines decides."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from engines.base import EngineInfo, ShotPictures, ShotReading, Status
from model_loader import PictureSpec
from qwen_shots.errors import NotANumber, QueueFull
from qwen_shots.media import PictureFit
from qwen_shots.scoring import Reading
from settings import Settings

SPEC = PictureSpec(patch=14, merge=2, temporal=2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
READING = Reading(value=0.5, spread=0.1, mass=1.0, mode=0.5)
CURSED_ROWS = 84  # pictures of this height have no score


class FixedCostEngine:
    """Implements `deploy.replicas.MachineEngine`: one shot after another, each for the same time, like one GPU.

    Args:
        settings: the attributes are taken from them.
        seconds: what a shot costs.
    """

    def __init__(self, settings: Settings, seconds: float) -> None:
        self.info = EngineInfo("fixed cost", "cpu")
        self.status = Status.LOADING
        self.failure: str | None = None
        self.pictures: PictureSpec | None = SPEC
        self.fit: PictureFit | None = SPEC.fit(256)
        self.full: QueueFull | None = None
        self.retry_after = 1
        self.queue_depth = 0
        self._attributes: Sequence[str] = list(settings.attributes)
        self._seconds = seconds
        self._free = asyncio.Lock()

    async def start(self) -> None:
        """Nothing to load."""
        self.status = Status.HEALTHY

    async def look(self, shot: ShotPictures) -> ShotReading:
        """The same scores for every shot that is not cursed, and who gave them."""
        self.queue_depth += 1
        try:
            async with self._free:
                await asyncio.sleep(self._seconds)
        finally:
            self.queue_depth -= 1
        if shot.pictures[0].shape[0] == CURSED_ROWS:
            raise NotANumber("the model's probabilities hold NaN")
        return ShotReading(f"Process {os.getpid()}", dict.fromkeys(self._attributes, (READING,) * len(shot.pictures)))

    async def close(self) -> None:
        """Nothing to free."""


class BrokenEngine(FixedCostEngine):
    """Its model can't be loaded."""

    async def start(self) -> None:
        """Fail at once."""
        self.status = Status.FAILED
        self.failure = "model.name: there is no folder ./no/such/model"
