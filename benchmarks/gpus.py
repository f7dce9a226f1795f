"""How one machine's scheduler grows with its GPUs: `python -m benchmarks.gpus`.

The queue, the batches and the event loop are the real ones; the GPUs are fakes: first in steady state with a fixed time
for a batch, then a whole film, its beginning and its end included, with batches that take what an H100 takes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import rounds
from engines.base import ShotPictures
from settings import Settings, load_settings
from tests.engines.fake_gpus import SIDE, fake_gpus, started
from tests.helpers import BUNDLED

BATCH = 128  # shots of three full pictures that a batch on a GPU holds (engines/budget.py)
# An H100's batch of n shots takes so much, and so much more for each (benchmarks/README.md, "How it grows").
BATCH_SECONDS, SHOT_SECONDS = 0.035, 0.0142
REQUEST, CONNECTIONS = 10, 16  # shots of a request; requests at the same time for each GPU
# Not counted: the first batch holds the one shot that came first, and takes as long as a full one.
WARM_BATCHES = 3
# In hand for each GPU: one is looked at, and two wait, as with clients that send on when they get an answer.
BATCHES_IN_HAND = 3
SHOT = ShotPictures((np.zeros((SIDE, SIDE, 3), np.uint8),))


async def film_shots_a_second(settings: Settings, gpus: int, shots: int) -> float:
    """The rate of a whole film, sent as `benchmarks.replicas` sends it.

    Args:
        settings: the whole configuration.
        gpus: how many there are.
        shots: of the film; what does not fill a request is left out.
    """

    async def work(_rank: int, count: int) -> None:
        await asyncio.sleep(BATCH_SECONDS + SHOT_SECONDS * count)

    with fake_gpus(gpus, BATCH, work):
        engine = await started(settings, gpus)
        left = iter(range(shots // REQUEST))

        async def connection() -> None:
            for _ in left:
                await asyncio.gather(*(engine.look(SHOT) for _ in range(REQUEST)))

        began = time.perf_counter()
        await asyncio.gather(*(connection() for _ in range(CONNECTIONS * gpus)))
        seconds = time.perf_counter() - began
        await engine.close()
    return shots // REQUEST * REQUEST / seconds


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
        engine = await started(settings, gpus)
        warm, counted, in_hand = (count * BATCH * gpus for count in (WARM_BATCHES, batches, BATCHES_IN_HAND))
        left = iter(range(warm + counted + in_hand))
        answered: list[float] = []

        async def client() -> None:
            for _ in left:
                await engine.look(SHOT)
                answered.append(time.perf_counter())

        await asyncio.gather(*(client() for _ in range(in_hand)))
        await engine.close()
    # The end is not counted either: fewer wait than fill all GPUs then.
    return counted / (answered[warm + counted - 1] - answered[warm - 1])


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpus", description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--batches", type=int, default=10, help="full batches for each GPU")
    parser.add_argument("--seconds", type=float, default=1.0, help="what a batch takes")
    parser.add_argument("--film", type=int, default=1000, help="shots of the film")
    asked = parser.parse_args(arguments)
    environ = {
        "QWEN_SERVER__MODEL__NAME": BUNDLED,
        "QWEN_SERVER__SERVER__MAX_QUEUE_SHOTS": str(4 * BATCH * max(asked.gpus)),
    }
    settings = load_settings(environ=environ)
    print(f"{rounds.machine()}\nbatches of {BATCH} shots, {asked.seconds} s each\n")
    tell(asked.gpus, lambda gpus: asyncio.run(shots_a_second(settings, gpus, asked.batches, asked.seconds)))
    told = f"batches of {BATCH_SECONDS} s and {SHOT_SECONDS} s a shot"
    print(f"\na film of {asked.film} shots, {told}; {REQUEST} shots a request, {CONNECTIONS} connections a GPU\n")
    tell(asked.gpus, lambda gpus: asyncio.run(film_shots_a_second(settings, gpus, asked.film)))
    return 0


def tell(counts: Sequence[int], rate_of: Callable[[int], float]) -> None:
    """Print the rates that some numbers of GPUs reach."""
    print("| GPUs | shots/s | times one GPU |\n|---|---|---|")
    first: float | None = None
    for gpus in counts:
        rate = rate_of(gpus)
        first = first or rate
        print(f"| {gpus} | {rate:.1f} | {rate / first:.2f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
