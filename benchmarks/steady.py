"""Batch after batch through the three stations of an engine process, as they go there."""

from __future__ import annotations

import time
from collections.abc import Sequence

from engines.base import ShotPictures, ShotReading
from engines.runner import ModelRunner
from engines.stations import Answer, Job, pass_through


def steady_seconds(runner: ModelRunner, batches: Sequence[Sequence[ShotPictures]]) -> float:
    """Seconds for all batches; every shot must be answered.

    The clock runs from the answers of a batch before them to those of the last, and another one is behind that: so what
    the engine does of a batch while it still has the one before counts for neither end.

    Raises:
        RuntimeError: a shot was not answered.
    """
    answered: list[tuple[float, Sequence[Answer]]] = []

    def done(answers: Sequence[Answer]) -> None:
        answered.append((time.perf_counter(), answers))

    passing = [batches[0], *batches, batches[0]]
    pass_through(runner, [Job(batch, None, done) for batch in passing])
    for batch, (_, answers) in zip(passing, answered, strict=True):
        if len(answers) != len(batch) or not all(isinstance(answer, ShotReading) for answer in answers):
            raise RuntimeError("not every shot was answered")
    return answered[-2][0] - answered[0][0]
