"""A batch's way to an engine process: `python -m benchmarks.handover --shots 40 128`.

Through the pipe, and in the memory that both processes see; timed from when the server has the batch until the
engine has its pictures in one piece. Once the engine's process does nothing else, once a thread of it wants the
interpreter all the time, as launching kernels and putting answers into words do in part.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection

from benchmarks import rounds
from benchmarks.noise import random_shots
from engines.arena import Arena, ArenaReader
from engines.base import ShotPictures
from engines.messages import receive, send
from qwen_shots.fusion import KEY_FRAMES
from tests.engines.fake_gpus import SPEC

ROWS, COLUMNS = 12, 21  # tokens of 1280 x 720 under the default cap

HandOver = Callable[[Sequence[ShotPictures]], None]


def engine_main(pipe: Connection, arena: ArenaReader | None, *, busy: bool) -> None:
    """What the engine's process runs: puts the pictures of each batch into one piece, and says so."""
    from engines.qwen2vl.tower import gather_pixels

    if busy:
        threading.Thread(target=_want_the_interpreter, daemon=True).start()
    pipe.send(None)
    while shots := receive(pipe, arena):
        gather_pixels([picture for shot in shots for picture in shot.pictures], SPEC, pinned=False)
        pipe.send(None)


def _want_the_interpreter() -> None:
    count = 0
    while True:
        count += 1


@contextmanager
def engine(arena: Arena | None, *, busy: bool) -> Iterator[HandOver]:
    """An engine's process, and what hands it a batch and waits until it has it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=partial(engine_main, busy=busy), args=(theirs, arena), daemon=True)
    process.start()
    ours.recv()

    def hand_over(shots: Sequence[ShotPictures]) -> None:
        send(ours, shots, arena)
        ours.recv()

    try:
        yield hand_over
    finally:
        send(ours, None)
        process.join()


def film(count: int, arena: Arena | None) -> list[ShotPictures]:
    """Shots of noise, in shared memory where there is one."""
    shots = random_shots(count, ROWS, COLUMNS)
    return [ShotPictures(tuple(map(arena.keep, shot.pictures))) for shot in shots] if arena else shots


def median_seconds(arena: Arena | None, counts: Sequence[int], repeats: int, *, busy: bool) -> list[float]:
    """For a batch of each size, after one that is not counted."""
    with engine(arena, busy=busy) as hand_over:
        return [_median_seconds(hand_over, film(count, arena), repeats) for count in counts]


def _median_seconds(hand_over: HandOver, shots: Sequence[ShotPictures], repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        hand_over(shots)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.handover", description=__doc__)
    parser.add_argument("--shots", type=int, nargs="+", default=[40, 128], help="shots of a batch")
    parser.add_argument("--rounds", type=int, default=5, help="batches each way")
    asked = parser.parse_args(arguments)
    print(rounds.machine() + "\n")
    print("| the engine's interpreter | shots | through the pipe, ms | in shared memory, ms | times as fast |")
    print("|---|---|---|---|---|")
    arena = Arena()
    pictures = KEY_FRAMES * max(asked.shots)
    arena.open(pictures, ROWS * COLUMNS * SPEC.factor**2 * 3, pictures)
    for busy, name in ((False, "idle"), (True, "busy")):
        ways = [median_seconds(way, asked.shots, asked.rounds, busy=busy) for way in (None, arena)]
        for count, pipe, shared in zip(asked.shots, *ways, strict=True):
            print(f"| {name} | {count} | {pipe * 1e3:.0f} | {shared * 1e3:.0f} | {pipe / shared:.1f} |", flush=True)
    arena.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
