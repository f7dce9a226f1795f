"""A real engine process that raises, hangs, spins, dies, answers NaN or half a batch: what each waiter is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engines.base import ShotPictures, ShotReading, Status
from engines.local import LocalEngine
from engines.watchdog import Spent
from qwen_shots.errors import EngineLost, NotANumber, QwenShotsError, ShotFailed
from settings import Settings
from tests.engines import faulty
from tests.engines.fake_gpus import SIDE
from tests.engines.faulty import Plan
from tests.helpers import PATIENCE_SECONDS

SHOT = ShotPictures((np.zeros((SIDE, SIDE, 3), np.uint8),))
MARKED = ShotPictures((np.full((SIDE, SIDE, 3), 255, np.uint8),))

Scenario = Callable[[LocalEngine], Coroutine[None, None, None]]


async def until(engine: LocalEngine, status: Status) -> float:
    """Wait for a status; the seconds that it took."""
    began = time.monotonic()
    while engine.status is not status:
        assert time.monotonic() - began < PATIENCE_SECONDS, engine.status
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, plan: Plan, scenario: Scenario) -> None:
    """Play a scenario with an engine whose looks go wrong as planned."""
    monkeypatch.setattr("engines.worker.main", partial(faulty.main, plan))
    monkeypatch.setattr("engines.local.FIRST_RESTART_SECONDS", 0.05)

    async def play() -> None:
        engine = LocalEngine(settings)
        await engine.start()
        await until(engine, Status.HEALTHY)
        await asyncio.wait_for(scenario(engine), PATIENCE_SECONDS)
        await engine.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("raise", ShotFailed), ("cuda", EngineLost), ("die", EngineLost), ("nan", NotANumber), ("half", EngineLost),
    ],
)  # fmt: skip
def test_a_fault_at_every_call(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str, error: type[QwenShotsError]
) -> None:
    async def scenario(engine: LocalEngine) -> None:
        answers = await asyncio.gather(*(engine.look(SHOT) for _ in range(3)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {error}
        assert "sesame" not in str(answers)
        assert engine.queue_depth == 0

    run(settings, monkeypatch, Plan(fault, tmp_path / "calls"), scenario)


def test_a_shot_that_ends_every_engine_takes_no_other_along(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shots = [SHOT, SHOT, MARKED, SHOT, SHOT, SHOT, MARKED, SHOT, SHOT]

    async def scenario(engine: LocalEngine) -> None:
        answers = await asyncio.gather(*map(engine.look, shots), return_exceptions=True)
        assert [type(answer) for answer in answers] == [EngineLost if shot is MARKED else ShotReading for shot in shots]
        assert str(answers[2]) == "the engine stopped twice while it held the shot"

    run(settings, monkeypatch, Plan("die", tmp_path / "calls", batch_tokens=4, marked=True), scenario)


@pytest.mark.parametrize("fault", ["spin", "hang", "stop"])
def test_a_stuck_look_is_noticed_and_its_shots_are_answered(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    async def scenario(engine: LocalEngine) -> None:
        # The first batch of a size is given more time; this one is its second.
        assert isinstance(await engine.look(SHOT), ShotReading)
        looking = asyncio.create_task(engine.look(SHOT))
        # 5 s where the machine does nothing else, which test_watchdog holds on a clock of its own.
        assert await until(engine, Status.DEGRADED) < 30
        assert isinstance(await looking, ShotReading)
        assert engine.status is Status.HEALTHY

    run(settings, monkeypatch, Plan(fault, tmp_path / "calls", frozenset({1})), scenario)


@pytest.mark.parametrize("fault", ["raise", "spin"])
def test_an_idle_engine_that_can_not_answer_is_noticed_by_a_probe(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    monkeypatch.setattr("engines.replica.PROBE_SECONDS", 0.2)
    monkeypatch.setattr("engines.watchdog.LEAST_LIMIT", Spent(0.5, 0.2))

    async def scenario(engine: LocalEngine) -> None:
        await until(engine, Status.DEGRADED)
        await until(engine, Status.HEALTHY)
        assert isinstance(await engine.look(SHOT), ShotReading)

    run(settings, monkeypatch, Plan(fault, tmp_path / "calls", frozenset({2})), scenario)


def test_an_engine_that_hangs_while_it_is_started_again_is_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("engines.local.LEAST_LOAD_SECONDS", 0.001)
    monkeypatch.setattr("engines.local.LOAD_PATIENCE", 0.001)

    async def scenario(engine: LocalEngine) -> None:
        lost = await asyncio.gather(engine.look(SHOT), return_exceptions=True)
        assert type(lost[0]) is EngineLost
        monkeypatch.setattr("engines.local.LEAST_LOAD_SECONDS", PATIENCE_SECONDS)
        engine._load_patience = PATIENCE_SECONDS
        await until(engine, Status.HEALTHY)

    run(settings, monkeypatch, Plan("die", tmp_path / "calls", frozenset({0})), scenario)
