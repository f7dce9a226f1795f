"""Batches on their way through an engine process: in order, each answered once, the next one seen before its turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from engines.backbone import Following
from engines.base import ShotPictures, ShotReading
from engines.stations import Answer, Job, pass_through

READING = ShotReading("", {})
SHOT = ShotPictures((np.zeros((28, 28, 3), np.uint8),))


@dataclass
class Recording:
    """Stations that note what they see; `run` does what it is told to with the batch behind it."""

    meet: Callable[[str, Following], None] = lambda batch, following: None
    broken: str = ""
    ran: list[str] = field(default_factory=list)

    def prepare(self, shots: Sequence[ShotPictures]) -> str:
        name = f"batch of {len(shots)}"
        if name == self.broken:
            raise ValueError("can't be laid out")
        return name

    def run(self, prepared: str, following: Following | None = None) -> int:
        self.ran.append(prepared)
        if following:
            self.meet(prepared, following)
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


def until(there: Callable[[], object]) -> object:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if found := there():
            return found
        time.sleep(0.001)
    pytest.fail("it never came")


def test_the_next_batch_is_seen_before_its_turn_and_stays_the_next() -> None:
    seen: list[object] = []

    def meet(batch: str, following: Following) -> None:
        if batch != "batch of 3":
            seen.append(until(following.peek))
            assert following.peek() == seen[-1], "looked at twice, it is the same"

    stations = Recording(meet)
    assert go(stations, [1, 2, 3]) == [1, 2, 3]
    assert seen == ["batch of 2", "batch of 3"]
    assert stations.ran == ["batch of 1", "batch of 2", "batch of 3"]


def test_there_is_nothing_behind_the_last_batch() -> None:
    ended = threading.Event()
    seen: list[object] = []

    def jobs() -> Iterator[Job]:
        yield Job([SHOT], None, lambda answers: None)
        ended.set()

    def meet(_: str, following: Following) -> None:
        ended.wait(5)
        time.sleep(0.05)  # the end of the line is put there too
        seen.extend([following.peek(), following.peek()])

    pass_through(Recording(meet), jobs())
    assert seen == [None, None]


def test_a_batch_that_is_not_there_yet_is_not_waited_for() -> None:
    first_is_over = threading.Event()
    seen: list[object] = []

    def jobs() -> Iterator[Job]:
        yield Job([SHOT], None, lambda answers: first_is_over.set())
        first_is_over.wait(5)
        yield Job([SHOT] * 2, None, lambda answers: None)

    stations = Recording(lambda _, following: seen.append(following.peek()))
    pass_through(stations, jobs())
    assert seen == [None, None]
    assert stations.ran == ["batch of 1", "batch of 2"]


def test_a_batch_that_could_not_be_prepared_is_not_shown_and_halved_in_its_turn() -> None:
    seen: list[object] = []

    def meet(batch: str, following: Following) -> None:
        if batch == "batch of 2":
            time.sleep(0.05)
            seen.append(following.peek())

    stations = Recording(meet, broken="batch of 4")
    assert go(stations, [2, 4, 3]) == [2, 4, 3]
    assert seen == [None]
    assert stations.ran == ["batch of 2", "batch of 2", "batch of 2", "batch of 3"]


def test_more_is_asked_for_when_the_device_says_so() -> None:
    asked: list[None] = []
    stations = Recording(lambda _, following: following.ask())
    assert go(stations, [1, 1], lambda: asked.append(None)) == [1, 1]
    assert len(asked) == 2
    assert go(stations, [1, 1]) == [1, 1]
