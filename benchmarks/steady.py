"""Batch after batch through the three stations of an engine process, as they go there."""

from __future__ import annotations

import time
from collections.abc import Sequence

from engines.base import ShotPictures, ShotReading
from engines.runner import ModelRunner
from engines.stations import Answer, Job, pass_through


def steady_seconds(runner: ModelRunner, batches: Sequence[Sequence[ShotPictures]]) -> float:
    """Seconds for all batches, after one that is not counted; every shot must be answered.

    Raises:
        RuntimeError: a shot was not.
    """
    answers: list[Answer] = []
    began = 0.0

    def started(_: Sequence[Answer]) -> None:
        nonlocal began
        began = time.perf_counter()

    jobs = [Job(batches[0], None, started), *(Job(batch, None, answers.extend) for batch in batches)]
    pass_through(runner, jobs)
    seconds = time.perf_counter() - began
    if not all(isinstance(answer, ShotReading) for answer in answers) or len(answers) != sum(map(len, batches)):
        raise RuntimeError("not every shot was answered")
    return seconds
