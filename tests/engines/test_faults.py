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


@pytest.mark.parametrize(("fault", "why"), [("raise", "it can't answer a probe"), ("spin", "a batch of")])
def test_an_idle_engine_that_can_not_answer_is_noticed_by_a_probe(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fault: str,
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("engines.replica.PROBE_SECONDS", 0.2)
    monkeypatch.setattr("engines.watchdog.LEAST_LIMIT", Spent(0.5, 0.2))

    async def scenario(engine: LocalEngine) -> None:
        await until(engine, Status.DEGRADED)
        await until(engine, Status.HEALTHY)
        assert isinstance(await engine.look(SHOT), ShotReading)

    run(settings, monkeypatch, Plan(fault, tmp_path / "calls", frozenset({2})), scenario)
    assert f"engine 0 stopped (the engine process ended: {why}" in caplog.text
    assert ", exit code -9); starting it again" in caplog.text


def grey(level: int) -> ShotPictures:
    return ShotPictures((np.full((SIDE, SIDE, 3), level, np.uint8),))


@pytest.mark.parametrize("fault", ["raise", "nan"])
def test_an_engine_that_fails_every_shot_is_ended_while_it_is_busy(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(engine: LocalEngine) -> None:
        (pid,) = engine.pids
        # A shot that fails again and again is that shot's fault, and a good answer clears the engine.
        for shot in (SHOT, SHOT, SHOT, SHOT, grey(1), MARKED, grey(2), grey(2), SHOT):
            await asyncio.gather(engine.look(shot), return_exceptions=True)
        assert engine.pids == [pid]
        with pytest.raises(ShotFailed):
            await engine.look(grey(3))
        await until(engine, Status.DEGRADED)
        await until(engine, Status.HEALTHY)
        assert engine.pids != [pid]

    fails = frozenset(range(100)) - {5}
    run(settings, monkeypatch, Plan(fault, tmp_path / "calls", fails), scenario)
    assert "it failed on every shot of several batches in a row" in caplog.text


def test_an_engine_whose_last_batch_failed_gets_one_shot_at_a_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def scenario(engine: LocalEngine) -> None:
        (replica,) = engine._replicas.values()
        assert replica.budget == 64
        with pytest.raises(ShotFailed):
            await engine.look(SHOT)
        assert replica.budget == 1
        assert isinstance(await engine.look(MARKED), ShotReading)
        assert replica.budget == 64

    run(settings, monkeypatch, Plan("raise", tmp_path / "calls", frozenset({0})), scenario)


def test_what_does_not_fit_into_memory_is_learnt_from(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each batch of more than two shots runs out of memory, so a few of them have to; then none is that large."""
    plan = Plan("crowded", tmp_path / "calls", batch_tokens=16)

    async def scenario(engine: LocalEngine) -> None:
        (replica,) = engine._replicas.values()
        while replica.budget > 2:
            answers = await asyncio.gather(*(engine.look(SHOT) for _ in range(20)))
            assert all(isinstance(answer, ShotReading) for answer in answers)
        caplog.clear()
        await asyncio.gather(*(engine.look(SHOT) for _ in range(20)))
        assert engine.status is Status.HEALTHY
        assert "did not fit" not in caplog.text

    run(settings, monkeypatch, plan, scenario)


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
