"""GPUs that cost a known time, in the place of `engines.local.Replica`: for what the scheduler alone decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from engines.arena import Arena
from engines.base import EngineInfo, Observer, ShotPictures, ShotReading, Status
from engines.local import LocalEngine
from engines.stations import Answer
from engines.worker import Ready
from model_loader import PictureSpec
from settings import Settings

Work = Callable[[int, int], Coroutine[Any, Any, None]]

SPEC = PictureSpec(patch=14, merge=2, temporal=2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
READING = ShotReading("", {})
SIDE = SPEC.factor  # a picture of this side is one token


class NeverLost:
    """The part of a replica that notices its end.

    Attributes:
        budget: as `Replica.budget`.
    """

    budget = 10

    async def wait_lost(self) -> None:
        """It is never lost."""
        await asyncio.Event().wait()

    async def watch(self) -> None:
        """It is never stuck."""
        await asyncio.Event().wait()


class FakeGpu(NeverLost):
    """What `LocalEngine` asks of a replica.

    Args:
        settings: not looked at.
        rank: which GPU it is.
        gpus: how many there are.
        batch: shots of one token that a batch holds.
        work: awaited with the rank and the number of shots of each batch.
    """

    pid: int | None = None
    exit_code: int | None = None

    def __init__(self, settings: Settings, rank: int, *, gpus: int, batch: int, work: Work) -> None:
        self._rank = rank
        self._gpus = gpus
        self._batch = self.budget = batch
        self._work = work
        self._turn = asyncio.Semaphore(1)

    async def start(self, patience: float | None = None) -> Ready:
        """Nothing to load."""
        info = EngineInfo("fake", "cuda", self._gpus, self._gpus * 2**30)
        return Ready(info, SPEC, self._gpus, batch_tokens=self._batch, text_tokens=(0, 0, 0))

    async def wait_turn(self) -> None:
        """One batch after another."""
        await self._turn.acquire()

    async def run(self, shots: Sequence[ShotPictures], tokens: int, *, alone: bool = False) -> tuple[Answer, ...]:
        """The same answer for each shot, when the work is done."""
        await self._work(self._rank, len(shots))
        self._turn.release()
        return (READING,) * len(shots)

    async def close(self) -> None:
        """Nothing to free."""


@contextmanager
def fake_gpus(gpus: int, batch: int, work: Work) -> Iterator[None]:
    """Each `LocalEngine` that starts inside has that many of them."""

    def make(settings: Settings, rank: int, _: Observer, __: Arena) -> FakeGpu:
        return FakeGpu(settings, rank, gpus=gpus, batch=batch, work=work)

    with patch("engines.local.Replica", make):
        yield


async def started(settings: Settings, gpus: int) -> LocalEngine:
    """An engine on that many fake GPUs, all ready."""
    engine = LocalEngine(settings)
    await engine.start()
    while len(engine._ready) < gpus:
        assert engine.failure is None, engine.failure
        await asyncio.sleep(0.001)
    assert engine.status is Status.HEALTHY
    return engine
