"""An engine for faults that the real one can't be made to have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from engines.base import EngineInfo, ShotPictures, ShotReading, Status
from qwen_shots.errors import QueueFull
from qwen_shots.media import PictureFit
from qwen_shots.scoring import Reading


class FakeEngine:
    """Implements `engines.base.Engine`: answers at once with fixed scores, or does what `on_look` says."""

    def __init__(self, attributes: Sequence[str], on_look: Callable[[ShotPictures], None] | None = None) -> None:
        self.info = EngineInfo("fake", "cpu")
        self.status = Status.HEALTHY
        self.failure: str | None = None
        self.fit: PictureFit | None = None
        self.closed = False
        self.delay = 0.0
        self.looking = 0
        self.queue_depth = 0
        self.full: QueueFull | None = None
        self.retry_after = 1
        self._attributes = attributes
        self._on_look = on_look

    async def start(self) -> None:
        """Nothing to load."""

    async def look(self, shot: ShotPictures) -> ShotReading:
        """The same answer for every shot."""
        self.looking += 1
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.looking -= 1
        if self._on_look:
            self._on_look(shot)
        reading = Reading(value=0.5, spread=0.1, mass=1.0, mode=0.5)
        return ShotReading("A fake caption", {name: (reading,) * len(shot.pictures) for name in self._attributes})

    async def close(self) -> None:
        """Remember it."""
        self.closed = True
