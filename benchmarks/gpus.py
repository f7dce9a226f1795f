"""How one machine's scheduler grows with its GPUs: `python -m benchmarks.gpus`.

The queue, the batches and the event loop are the real ones; the GPUs are fakes that take a fixed time for a batch.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks import rounds
from engines.base import ShotPictures
from engines.local import LocalEngine
from settings import Settings, load_settings
from tests.engines.fake_gpus import SIDE, fake_gpus
from tests.helpers import BUNDLED

BATCH = 110  # shots of three full pictures that a batch on a GPU holds (engines/budget.py)
# Not counted: the first batch holds the one shot that came first, and takes as long as a full one.
WARM_BATCHES = 3
SHOT = ShotPictures((np.zeros((SIDE, SIDE, 3), np.uint8),))


async def shots_a_second(settings: Settings, gpus: int, batches: int, seconds: float) -> float:
    """The rate at which that many GPUs get through their shots.

    Args:
        settings: the whole configuration.
        gpus: how many there are.
        batches: full batches for each of them.
        seconds: what a batch takes.
    """

    async def work(_rank: int, _shots: int) -> None:
        await asyncio.sleep(seconds)

    with fake_gpus(gpus, BATCH, work):
        engine = LocalEngine(settings)
        await engine.start()
        while engine.info.gpu_count < gpus or engine.status.value != "healthy":
            await asyncio.sleep(0.01)
        warm = WARM_BATCHES * BATCH * gpus
        left = iter(range(warm + batches * BATCH * gpus))
        answered: list[float] = []

        async def client() -> None:
            for _ in left:
                await engine.look(SHOT)
                answered.append(time.perf_counter())

        # A third batch for each GPU waits at any time, as with clients that send on when they get an answer.
        await asyncio.gather(*(client() for _ in range(3 * BATCH * gpus)))
        await engine.close()
    return (len(answered) - warm) / (answered[-1] - answered[warm - 1])


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpus", description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--batches", type=int, default=10, help="full batches for each GPU")
    parser.add_argument("--seconds", type=float, default=1.0, help="what a batch takes")
    asked = parser.parse_args(arguments)
    environ = {
        "QWEN_SERVER__MODEL__NAME": BUNDLED,
        "QWEN_SERVER__SERVER__MAX_QUEUE_SHOTS": str(4 * BATCH * max(asked.gpus)),
    }
    settings = load_settings(environ=environ)
    print(f"{rounds.machine()}\nbatches of {BATCH} shots, {asked.seconds} s each\n")
    print("| GPUs | shots/s | times one GPU |\n|---|---|---|")
    first: float | None = None
    for gpus in asked.gpus:
        rate = asyncio.run(shots_a_second(settings, gpus, asked.batches, asked.seconds))
        first = first or rate
        print(f"| {gpus} | {rate:.1f} | {rate / first:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
