"""Batches on their way through an engine process: in order, each answered once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from engines.base import ShotPictures, ShotReading
from engines.stations import Answer, Job, pass_through
from qwen_shots.errors import OutOfMemory
from tests.scripts.processes import wait_for

READING = ShotReading("", {})
SHOT = ShotPictures((np.zeros((28, 28, 3), np.uint8),))


@dataclass
class Recording:
    """Stations that note what they see; `meet` is called while a batch is on the device."""

    meet: Callable[[], object] = lambda: None
    broken: str = ""
    prepared: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)

    def prepare(self, shots: Sequence[ShotPictures]) -> str:
        name = f"batch of {len(shots)}"
        if name == self.broken:
            raise ValueError("can't be laid out")
        self.prepared.append(name)
        return name

    def run(self, prepared: str, ask: Callable[[], None] | None = None) -> int:
        self.ran.append(prepared)
        self.meet()
        if ask:
            ask()
        return int(prepared.rpartition(" ")[2])

    def finish(self, prepared: str, ran: int) -> Sequence[Answer]:
        return [READING] * ran


def go(stations: Recording, sizes: Sequence[int], hungry: Callable[[], None] | None = None) -> list[int]:
    """How many answers came, batch by batch."""
    answered: list[int] = []
    pass_through(
        stations, [Job([SHOT] * size, hungry, lambda answers: answered.append(len(answers))) for size in sizes]
    )
    return answered


def test_batches_go_one_behind_the_other() -> None:
    stations = Recording()
    assert go(stations, [1, 2, 3]) == [1, 2, 3]
    assert stations.ran == ["batch of 1", "batch of 2", "batch of 3"]


def test_the_next_batch_is_prepared_while_one_is_on_the_device() -> None:
    stations = Recording()
    stations.meet = lambda: None if len(stations.ran) > 1 else wait_for(lambda: len(stations.prepared) > 1)
    assert go(stations, [2, 3]) == [2, 3]


def test_a_batch_that_could_not_be_prepared_is_halved_in_its_turn() -> None:
    stations = Recording(broken="batch of 4")
    assert go(stations, [2, 4, 3]) == [2, 4, 3]
    assert stations.ran == ["batch of 2", "batch of 2", "batch of 2", "batch of 3"]


def test_a_batch_that_does_not_fit_into_memory_is_reported_once() -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    crowded: list[int] = []
    stations = Recording()

    def meet() -> None:
        if stations.ran[-1] in ("batch of 4", "batch of 1"):
            raise OutOfMemoryError

    stations.meet = meet
    answers: list[Answer] = []
    jobs = [Job([SHOT] * size, None, answers.extend, crowded=partial(crowded.append, size)) for size in (4, 1, 2)]
    pass_through(stations, jobs)
    assert crowded == [4], "one shot alone says nothing of the others"
    assert [isinstance(answer, OutOfMemory) for answer in answers] == [False] * 4 + [True] + [False] * 2


def test_more_is_asked_for_when_the_device_says_so() -> None:
    asked: list[None] = []
    assert go(Recording(), [1, 1], lambda: asked.append(None)) == [1, 1]
    assert len(asked) == 2
    assert go(Recording(), [1, 1]) == [1, 1]
