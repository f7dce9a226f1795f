"""Several GPUs on one queue: none rests while shots wait, none takes another's share."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from benchmarks import gpus as benchmark
from engines.base import ShotPictures
from settings import Settings
from tests.engines.fake_gpus import SIDE, fake_gpus, started

SHOT = ShotPictures((np.zeros((SIDE, SIDE, 3), np.uint8),))
BATCH = 4
# Of the event loop, which has nothing else to do: far more than a batch needs from one end to the next beginning.
TURNS = 50


async def until_still(busy: list[int], seen: int = -1) -> None:
    while len(busy) != seen:
        seen = len(busy)
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_no_gpu_rests_while_shots_wait(settings: Settings, gpus: int) -> None:
    busy: list[int] = []
    sizes: list[int] = []
    may_end = asyncio.Semaphore(0)

    async def work(rank: int, shots: int) -> None:
        assert rank not in busy
        busy.append(rank)
        sizes.append(shots)
        await may_end.acquire()
        busy.remove(rank)

    async def scenario() -> None:
        with fake_gpus(gpus, BATCH, work):
            engine = await started(settings, gpus)
            shots = [asyncio.create_task(engine.look(SHOT)) for _ in range(10 * BATCH * gpus)]
            while engine.queue_depth + sum(sizes) < len(shots):
                await until_still(busy)
            while not all(shot.done() for shot in shots):
                waiting = engine.queue_depth
                assert sorted(busy) == list(range(gpus)) or waiting == 0
                may_end.release()
                for _ in range(TURNS):
                    await asyncio.sleep(0)
            await engine.close()

    asyncio.run(scenario())
    # The first batches go out before the queue has filled, and what waits at the end is shared by all GPUs.
    assert sizes.count(BATCH) >= 8 * gpus - 1
    assert sum(sizes) == 10 * BATCH * gpus


def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--gpus", "1", "2", "--batches", "3", "--seconds", "0.01", "--film", "100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith(("| 1", "| 2"))] == ["| 1", "| 2"] * 2
