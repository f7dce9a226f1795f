"""An engine process without a model, whose looks go wrong as told: a real process, a real pipe, real signals.

A test replaces `engines.worker.main` by `partial(main, plan)`; the process unpickles it and runs the real worker around
a look that does what the plan says.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from engines import worker
from engines.arena import ArenaReader
from engines.base import EngineInfo, ShotPictures, ShotReading
from engines.stations import Answer, OneStep, Stations
from engines.worker import Ready
from qwen_shots.errors import NotANumber
from qwen_shots.scoring import Reading
from settings import Settings
from tests.engines.fake_gpus import SPEC

GOOD = Reading(value=0.5, spread=0.1, mass=1.0, mode=0.5)


class OutOfMemoryError(RuntimeError):
    """As torch's."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes wrong, and when.

    Attributes:
        fault: `raise`, `cuda`, `crowded` (more than two shots do not fit), `hang`, `spin`, `stop`, `die`, `nan`, `half`
            or `none`.
        calls: the calls, counted over all processes of the engine from 0, that go wrong; None: every one.
        count: the file whose length counts the calls.
        seconds: what a call takes.
        batch_tokens: tokens that a batch may hold; one picture of `SPEC.factor` pixels a side is one.
        marked: only batches that hold a white picture go wrong.
    """

    fault: str
    count: Path
    calls: frozenset[int] | None = None
    seconds: float = 0.0
    batch_tokens: int = 64
    marked: bool = False


def main(plan: Plan, pipe: Connection, settings: Settings, rank: int, arena: ArenaReader | None) -> None:
    """What the process runs."""

    def load(settings: Settings, rank: int) -> tuple[Stations, Ready]:
        info = EngineInfo(settings.model.name, "fake", weights="fake")
        ready = Ready(info, SPEC, 1, plan.batch_tokens, text_tokens=(0, 0, 0))
        return OneStep(partial(_look, plan, list(settings.attributes))), ready

    worker._load = load
    worker.main(pipe, settings, rank, arena)


def _look(plan: Plan, names: Sequence[str], shots: Sequence[ShotPictures]) -> Sequence[Answer]:
    call = plan.count.stat().st_size if plan.count.exists() else 0
    with plan.count.open("ab") as count:
        count.write(b".")
    time.sleep(plan.seconds)
    answers: list[Answer] = [
        ShotReading("A caption", {name: (GOOD,) * len(shot.pictures) for name in names}) for shot in shots
    ]
    if (plan.calls is None or call in plan.calls) and (not plan.marked or _has_mark(shots)):
        return _go_wrong(plan.fault, answers)
    return answers


def _has_mark(shots: Sequence[ShotPictures]) -> bool:
    return any(picture.min() == 255 for shot in shots for picture in shot.pictures)


def _go_wrong(fault: str, answers: list[Answer]) -> Sequence[Answer]:
    match fault:
        case "raise":
            raise ValueError("sesame")
        case "cuda":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        case "crowded" if len(answers) > 2:
            raise OutOfMemoryError("CUDA out of memory")
        case "hang":
            time.sleep(3600)
        case "spin":  # as a process does that waits for a GPU; its beats go on
            while True:
                pass
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "die":
            os._exit(1)
        case "nan":
            return [NotANumber("the model's probabilities hold NaN or infinity")] * len(answers)
        case "half":
            return answers[: len(answers) // 2]
    return answers
