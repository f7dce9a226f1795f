"""Steady traffic for a long time: `make soak`. Memory, threads and open files of the server and its engines stay flat.

Pictures, shots and batches change their sizes: memory that stays flat with one size of picture may grow with many.

Settings come from `config.yaml` and variables as for the server itself, so that it runs on a GPU machine too
(`QWEN_SERVER__MODEL__NAME=... python -m benchmarks.soak`); without them it takes the bundled checkpoint on the CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks import rounds
from benchmarks.stress.bars import Bar, at_most, growth_percent, none_of, percentile, table
from benchmarks.stress.kinds import KINDS
from benchmarks.stress.raw import Answer, exchange, post_json
from benchmarks.stress.target import MIB, Target, target
from tests.helpers import encode, scene, shot

SAMPLE_SECONDS = 5.0
WARM_UP_SHARE = 0.2
WARM_UP_MOST_SECONDS = 180.0
# First, for a moment, as many clients as fill the server's pools: their threads come when they are needed and stay.
CROWD, CROWD_SECONDS = 24, 10.0
MAY_GROW_PERCENT = 5.0
LEAVE_SHARE = 0.02
MALFORMED_SHARE = 0.1
BATCH_SHARE = 0.2
SHOTS, BATCHES = 40, 10
LEAST_HEIGHT, MOST_HEIGHT = 72, 1080
MOST_FRAMES = 10
MOST_SHOTS = 10  # processing.max_batch_size


@dataclass(frozen=True, slots=True)
class Sample:
    """What the processes held at one moment, together."""

    memory_mib: float
    threads: int
    files: int


def sample(server: Target) -> Mapping[str, Sample]:
    """`server` and `engines` to what they hold."""
    groups = {"server": [psutil.Process(server.process.pid)], "engines": server.engines()}
    return {
        name: Sample(
            sum(each.memory_info().rss for each in processes) / MIB,
            sum(each.num_threads() for each in processes),
            sum(each.num_fds() for each in processes),
        )
        for name, processes in groups.items()
    }


@dataclass(frozen=True, slots=True)
class Requests:
    """Good ones, made once: what the clients cost would be taken from the server."""

    shots: Sequence[bytes]
    batches: Sequence[bytes]


def make_requests(chance: random.Random) -> Requests:
    """Shots of all numbers of frames and sizes of picture, alone and in batches."""
    shots = [any_shot(chance, number) for number in range(SHOTS)]
    batches = [chance.sample(shots, chance.randint(2, MOST_SHOTS)) for _ in range(BATCHES)]
    return Requests(
        [post_json("/analyze", each) for each in shots],
        [post_json("/analyze_batch", {"shots": each}) for each in batches],
    )


def any_shot(chance: random.Random, number: int) -> dict[str, Any]:
    """A good shot; its frames have one size, as those of a film have."""
    height = chance.randint(LEAST_HEIGHT, MOST_HEIGHT)
    frames = [scene(number + frame, height, height * 16 // 9) for frame in range(chance.randint(1, MOST_FRAMES))]
    return shot(number, images=[encode(frame) for frame in frames])


async def traffic(
    server: Target, requests: Requests, seconds: float, clients: int, pause: float
) -> tuple[list[Answer], list[Answer]]:
    """Good and malformed requests, batches, and clients that leave; the answers to the good and to the bad ones."""
    good: list[Answer] = []
    bad: list[Answer] = []
    chance = random.Random(1)
    end = time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end:
            dice = chance.random()
            if dice < LEAVE_SHARE:
                asking = asyncio.create_task(exchange(server.port, chance.choice(requests.shots)))
                await asyncio.sleep(0.01)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            elif dice < LEAVE_SHARE + MALFORMED_SHARE:
                kind = chance.choice(list(KINDS))
                bad.append(await exchange(server.port, KINDS[kind](chance), end="early" in kind))
            else:
                request = chance.choice(requests.batches if chance.random() < BATCH_SHARE else requests.shots)
                good.append(await exchange(server.port, request))
            await asyncio.sleep(pause * chance.random() * 2)

    await asyncio.gather(*(client() for _ in range(clients)))
    return good, bad


async def watch(server: Target, seconds: float) -> list[Mapping[str, Sample]]:
    """Samples at even distances."""
    end = time.monotonic() + seconds
    samples = []
    while time.monotonic() < end:
        samples.append(await asyncio.to_thread(sample, server))
        await asyncio.sleep(SAMPLE_SECONDS)
    return samples


def judge(samples: Sequence[Mapping[str, Sample]]) -> list[Bar]:
    """The last quarter against the first one."""
    quarter = max(1, len(samples) // 4)
    bars = []
    for group in samples[0]:
        for what in ("memory_mib", "threads", "files"):
            values = [getattr(each[group], what) for each in samples]
            first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
            name = f"{group}: {what.replace('_mib', '')}, {first:.4g} to {last:.4g}"
            bars.append(at_most(name, growth_percent(first, last), MAY_GROW_PERCENT, "% more"))
    return bars


async def run(server: Target, seconds: float, clients: int, pause: float) -> list[Bar]:
    """Warm up, then play and watch."""
    warm_up = min(WARM_UP_MOST_SECONDS, seconds * WARM_UP_SHARE)
    # Small shots, which a crowd need not wait long for.
    small = [post_json("/analyze", shot(number)) for number in range(CROWD)]
    await traffic(server, Requests(small, small), min(warm_up, CROWD_SECONDS), CROWD, 0)
    requests = make_requests(random.Random(1))
    await traffic(server, requests, warm_up, clients, pause)
    (good, bad), samples = await asyncio.gather(
        traffic(server, requests, seconds, clients, pause), watch(server, seconds)
    )
    wrong = [answer.status for answer in good if answer.status != 200]
    name = f"{len(good)} good requests, 99th percentile {percentile([each.seconds for each in good], 99):.2f} s"
    return [
        none_of(name, "answer but 200", wrong),
        none_of(f"{len(bad)} malformed requests", "5xx", [each.status for each in bad if each.status >= 500]),
        *judge(samples),
    ]


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="after the warm-up")
    parser.add_argument("--clients", type=int, default=3, help="that send at the same time")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between a client's requests, about")
    asked = parser.parse_args(arguments)
    own = {name.removeprefix("QWEN_SERVER__"): text for name, text in os.environ.items() if "QWEN_SERVER__" in name}
    print(f"{rounds.machine()}, load {os.getloadavg()[0]:.1f} at the start", flush=True)
    with target(None, **own) as server:
        bars = asyncio.run(run(server, 60 * asked.minutes, asked.clients, asked.pause))
        lost = server.count("qwen_engines_lost_total")
        lines = server.log.read_text(encoding="utf-8", errors="replace").splitlines()
        print(*(line for line in lines if " ERROR engines." in line), sep="\n")
    bars.append(none_of("engines", "engine lost", ["lost"] * int(lost)))
    print(f"{asked.minutes:g} minutes, load {os.getloadavg()[0]:.1f} at the end\n\n{table(bars)}")
    return 0 if all(bar.held for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
