"""Single shots and batches of changing sizes on a GPU, each answer beside the plain path's.

    python -m tests.engines.mixed_on_gpu --minutes 8

Single shots come in more sizes than are recorded, batches in any; memory is taken and given back between them, so that
a recording which reads what is no longer its own reads something else.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

import model_loader
from engines.base import ShotPictures, ShotReading
from engines.budget import find_room
from engines.qwen2vl.backbone import Qwen2VL
from engines.runner import ModelRunner
from engines.stations import Answer, Job, pass_through
from settings import Settings, load_settings
from tests.helpers import BUNDLED, scene

# Half precision's.
TOLERANCE = 0.02
BATCHES_AT_ONCE = 12
# Rows and columns of a single shot's pictures, in tokens: two more than are recorded.
SINGLE_SIZES = [(6, 10), (4, 7), (5, 5), (3, 9), (8, 4), (2, 12)]
MOST_SHOTS = 75


@dataclass
class Tally:
    """What came of it; `worst` is the largest difference of a score."""

    answers: int = 0
    worst: float = 0.0
    lost: int = 0
    recorded: int = 0

    def __str__(self) -> str:
        return (
            f"{self.answers} answers, {self.lost} without a score; worst difference {self.worst:.4f}; "
            f"{self.recorded} recordings kept"
        )

    @property
    def good(self) -> bool:
        """Whether every answer was the plain path's, and recordings were used at all."""
        return self.answers > 0 and self.lost == 0 and self.worst < TOLERANCE and self.recorded > 0


def load(settings: Settings) -> model_loader.LoadedModel:
    """The settings' model on this machine."""
    folder = model_loader.find_files(settings.model.name)
    return model_loader.load(settings.model, folder, model_loader.make_plan(settings.model, folder))


def warm_runner(loaded: model_loader.LoadedModel, settings: Settings) -> tuple[ModelRunner, int]:
    """As the engine process has it, recordings and a full cache; and its budget of tokens."""
    runner = ModelRunner(loaded, settings.attributes, settings.model.max_caption_tokens)
    room = find_room(loaded, runner, settings.model.max_frame_tokens)
    runner.look([pictures(0, 1, 4, 7)])
    runner.backbone.warm_up(room.batch_tokens, room.longest_shot)
    return runner, room.batch_tokens


def plain_runner(loaded: model_loader.LoadedModel, settings: Settings) -> ModelRunner:
    """One that records nothing."""
    runner = ModelRunner(loaded, settings.attributes, settings.model.max_caption_tokens)
    assert isinstance(runner.backbone, Qwen2VL)
    runner.backbone._recorder = None
    return runner


def pictures(seed: int, count: int = 3, rows: int = 4, columns: int = 7) -> ShotPictures:
    """A shot; the size is in tokens."""
    return ShotPictures(tuple(scene(seed + n, 28 * rows, 28 * columns) for n in range(count)))


def difference(one: Sequence[Answer], other: Sequence[Answer]) -> float:
    """The largest between two answers to the same shots; infinite where one has no score."""
    mine, theirs = ([answer.readings for answer in each if isinstance(answer, ShotReading)] for each in (one, other))
    if len(mine) < len(one) or len(theirs) < len(other):
        return math.inf
    return max(
        abs(a.value - b.value)
        for readings, others in zip(mine, theirs, strict=True)
        for name in readings
        for a, b in zip(readings[name], others[name], strict=True)
    )


def _batches(random: np.random.Generator) -> Iterator[list[ShotPictures]]:
    """Single shots mostly, as of an editor who looks at one, and batches as of a film."""
    while True:
        seed = int(random.integers(2**20))
        if random.random() < 0.7:
            yield [pictures(seed, 3, *SINGLE_SIZES[int(random.integers(len(SINGLE_SIZES)))])]
            continue
        count = int(random.integers(2, MOST_SHOTS))
        sizes = [(int(random.integers(1, 9)), int(random.integers(1, 11))) for _ in range(count)]
        yield [pictures(seed + n, 1 + n % 3, *size) for n, size in enumerate(sizes)]


def play(fast: ModelRunner, plain: ModelRunner, seconds: float, seed: int = 0) -> Tally:
    """Ask both runners until the time is over."""
    tally, random = Tally(), np.random.default_rng(seed)
    batches, taken = _batches(random), list[torch.Tensor]()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        some = [next(batches) for _ in range(BATCHES_AT_ONCE)]
        answers: list[Sequence[Answer]] = []
        pass_through(fast, [Job(batch, None, answers.append) for batch in some])
        for batch, answer in zip(some, answers, strict=True):
            off = difference(answer, plain.look(batch))
            tally.answers += len(batch)
            tally.lost += math.isinf(off)
            tally.worst = max(tally.worst, 0 if math.isinf(off) else off)
        # What was evicted is overwritten by these, and some of them are given back.
        taken += [torch.randint(2**30, (int(random.integers(1, 4096)),), device="cuda") for _ in range(16)]
        del taken[: int(random.integers(0, len(taken)))]
    assert isinstance(fast.backbone, Qwen2VL)
    tally.recorded = len(fast.backbone._recordings)
    return tally


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 0 where every answer was right."""
    parser = argparse.ArgumentParser(prog="tests.engines.mixed_on_gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8)
    asked = parser.parse_args(arguments)
    settings = load_settings(environ={"QWEN_SERVER__MODEL__NAME": BUNDLED, "QWEN_SERVER__MODEL__DTYPE": "bfloat16"})
    loaded = load(settings)
    fast, _ = warm_runner(loaded, settings)
    tally = play(fast, plain_runner(loaded, settings), 60 * asked.minutes)
    print(tally)
    return 0 if tally.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
