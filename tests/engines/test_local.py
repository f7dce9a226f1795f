"""The engine's processes: what becomes of shots when one dies, is full or can't load."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import model_loader
from engines import worker
from engines.arena import Arena
from engines.base import EngineInfo, ShotPictures, ShotReading, Status
from engines.local import LocalEngine, _tokens
from engines.qwen2vl.backbone import Qwen2VL
from engines.runner import ModelRunner
from engines.stations import Answer, answer_all
from qwen_shots.errors import CannotLoad, EngineLoading, EngineLost, OutOfMemory, ShotFailed
from settings import Settings
from tests.engines.fake_gpus import NeverLost
from tests.helpers import LAST_NORM, PATIENCE_SECONDS, assert_same, damaged, scene

SHOT = ShotPictures((scene(1, 56, 56),))
READING = ShotReading("", {})


async def until_healthy(engine: LocalEngine) -> None:
    await until(lambda: engine.status in (Status.HEALTHY, Status.FAILED))
    assert engine.status is Status.HEALTHY, engine.failure


async def until(reached: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something is so. Seconds in which this whole process stood still do not count."""
    for _ in range(round(10 * seconds)):
        if reached():
            return
        await asyncio.sleep(0.1)
    raise TimeoutError


def test_a_killed_engine_comes_back_and_no_shot_is_lost(settings: Settings) -> None:
    async def scenario() -> None:
        engine = LocalEngine(settings)
        assert engine.info == EngineInfo(settings.model.name)
        await engine.start()
        with pytest.raises(EngineLoading):
            await engine.look(SHOT)
        await until_healthy(engine)
        assert engine.info.device == "cpu"
        expected = await engine.look(SHOT)
        shots = [asyncio.create_task(engine.look(SHOT)) for _ in range(8)]
        await asyncio.sleep(0.02)
        (pid,) = engine.pids
        os.kill(pid, signal.SIGKILL)
        for answer in await asyncio.gather(*shots):
            assert_same(answer, expected)
        await until_healthy(engine)
        await engine.close()
        await engine.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("side", [56, 1120], ids=["sent", "larger than the pipe holds"])
def test_a_stuck_engine_is_ended_and_no_shot_is_lost(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, side: int
) -> None:
    shot = ShotPictures((scene(1, side, side),))
    monkeypatch.setattr(Arena, "keep", lambda _, picture: picture)  # so that all goes through the pipe

    async def scenario() -> None:
        engine = LocalEngine(settings)
        await engine.start()
        await until_healthy(engine)
        expected = await engine.look(shot)
        (pid,) = engine.pids
        os.kill(pid, signal.SIGSTOP)
        monkeypatch.setattr("engines.replica.BATCH_SECONDS", 0.5)
        looking = asyncio.create_task(engine.look(shot))
        await until(lambda: engine.status is Status.DEGRADED)
        monkeypatch.setattr("engines.replica.BATCH_SECONDS", PATIENCE_SECONDS)
        assert_same(await looking, expected)
        assert pid not in engine.pids
        assert "did not answer within" in caplog.text
        await engine.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_stopped_engine_is_noticed_within_five_seconds_and_no_shot_is_lost(settings: Settings, *, busy: bool) -> None:
    async def scenario() -> None:
        engine = LocalEngine(settings)
        await engine.start()
        await until_healthy(engine)
        expected = await engine.look(SHOT)
        (pid,) = engine.pids
        os.kill(pid, signal.SIGSTOP)
        shots = [asyncio.create_task(engine.look(SHOT)) for _ in range(5 * busy)]
        await until(lambda: engine.status is Status.DEGRADED, 6)  # 5, and what it takes to die
        await until_healthy(engine)
        for answer in [*await asyncio.gather(*shots), await engine.look(SHOT)]:
            assert_same(answer, expected)
        await engine.close()

    asyncio.run(scenario())


def test_an_engine_that_answers_half_a_batch_leaves_nobody_waiting(settings: Settings) -> None:
    async def scenario() -> None:
        engine = LocalEngine(settings)
        await engine.start()
        await until_healthy(engine)
        (replica,) = engine._replicas.values()
        exact = replica._on_message

        def halve(message: object) -> None:
            if isinstance(message, worker.Answers):
                message = worker.Answers(message.number, message.answers[:-1], message.spent)
            exact(message)

        replica._on_message = halve  # type: ignore[method-assign]
        answers = await asyncio.wait_for(asyncio.gather(*(engine.look(SHOT) for _ in range(4))), PATIENCE_SECONDS)
        assert all(isinstance(answer, ShotReading) for answer in answers)
        await engine.close()

    asyncio.run(scenario())


def test_a_model_that_is_not_there(settings: Settings) -> None:
    async def scenario() -> None:
        missing = settings.model.model_copy(update={"name": "./no/such/model"})
        engine = LocalEngine(settings.model_copy(update={"model": missing}))
        await engine.start()
        await until(lambda: engine.status is not Status.LOADING)
        assert engine.status is Status.FAILED
        assert engine.failure == "model.name: there is no folder ./no/such/model"
        await engine.close()

    asyncio.run(scenario())


def test_a_process_that_can_not_be_started(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async def scenario() -> None:
        monkeypatch.setattr("multiprocessing.process.BaseProcess.start", refuse)
        engine = LocalEngine(settings)
        await engine.start()
        await until(lambda: engine.status is not Status.LOADING)
        assert engine.failure == f"the engine process can't be started: {os.strerror(errno.EAGAIN)}"
        await engine.close()

    asyncio.run(scenario())


def test_a_shot_costs_its_words_too(settings: Settings) -> None:
    _, ready = worker._load(settings, rank=0)
    folder = model_loader.find_files(settings.model.name)
    loaded = model_loader.load(settings.model, folder, model_loader.make_plan(settings.model, folder))
    runner = ModelRunner(loaded, settings.attributes, 4)
    backbone = runner.backbone
    assert isinstance(backbone, Qwen2VL)
    for count in (1, 2, 3):
        shot = ShotPictures(tuple(scene(n, 56, 28 * count) for n in range(count)))
        layout = backbone.prepare([shot]).layout
        more = settings.model.max_caption_tokens - 4  # places in the cache that this runner does without
        assert _tokens(shot, ready) == max(int(layout.places[-1]) + more, len(layout.ids))


def test_a_failing_batch_is_halved_down_to_the_shot_that_is_to_blame() -> None:
    bad = ShotPictures((scene(2, 28, 28),))
    sizes: list[int] = []

    def look(shots: Sequence[ShotPictures]) -> list[Answer]:
        sizes.append(len(shots))
        if any(shot is bad for shot in shots):
            raise ValueError("bad")
        return [READING] * len(shots)

    answers = answer_all(look, [SHOT, SHOT, bad, SHOT])
    assert [isinstance(answer, ShotFailed) for answer in answers] == [False, False, True, False]
    assert sizes == [4, 2, 2, 1, 1]


def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    sizes: list[int] = []

    def look(shots: Sequence[ShotPictures]) -> list[Answer]:
        sizes.append(len(shots))
        if len(shots) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [READING] * len(shots)

    assert answer_all(look, [SHOT] * 8) == [READING] * 8
    assert sizes == [8, 4, 2, 2, 4, 2, 2]


def test_a_shot_that_does_not_fit_alone_is_told_so_and_the_next_one_works() -> None:
    huge = ShotPictures((scene(2, 28, 28),))

    def look(shots: Sequence[ShotPictures]) -> list[Answer]:
        if any(shot is huge for shot in shots):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [READING] * len(shots)

    first, second = answer_all(look, [huge, SHOT])
    assert isinstance(first, OutOfMemory)
    assert second is READING


def test_a_broken_gpu_ends_the_process() -> None:
    def look(_: Sequence[ShotPictures]) -> list[Answer]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="CUDA error"):
        answer_all(look, [SHOT])


def test_a_model_that_gives_no_numbers_is_not_served(settings: Settings, tmp_path: Path) -> None:
    folder = damaged(tmp_path / "nan", lambda name, weights: weights * (np.nan if name.endswith(LAST_NORM) else 1))
    model = settings.model.model_copy(update={"name": str(folder)})
    with pytest.raises(CannotLoad, match="does not answer: the model's probabilities hold NaN"):
        worker._load(settings.model_copy(update={"model": model}), rank=0)


@pytest.mark.parametrize(("least", "warned"), [(0.1, False), (1.0, True)])
def test_a_model_that_gives_few_numbers_is_warned_of(
    settings: Settings, caplog: pytest.LogCaptureFixture, least: float, *, warned: bool
) -> None:
    processing = settings.processing.model_copy(update={"least_mass": least})
    worker._load(settings.model_copy(update={"processing": processing}), rank=0)
    assert ("processing.least_mass" in caplog.text) is warned


def test_no_shot_is_forgotten_when_a_batch_can_not_be_sent(settings: Settings) -> None:
    class NoMemory(NeverLost):
        async def wait_turn(self) -> None:
            pass

        async def run(self, shots: Sequence[ShotPictures], tokens: int, *, alone: bool = False) -> tuple[Answer, ...]:
            raise MemoryError

    async def scenario() -> None:
        engine = LocalEngine(settings)
        answer = engine._queue.put(SHOT, 1)
        for waiting in (1, 0):
            with pytest.raises(EngineLost, match="ended: MemoryError"):
                await engine._serve_until_lost(NoMemory())  # type: ignore[arg-type]
            assert engine.queue_depth == waiting
        with pytest.raises(EngineLost, match="twice"):
            await answer

    asyncio.run(scenario())


def test_only_the_batch_that_was_under_way_is_suspected(settings: Settings) -> None:
    class DiesWithTwo(NeverLost):
        """Takes two batches at once, as a GPU does that has most of one behind it."""

        budget = 8

        def __init__(self) -> None:
            self._has_both = asyncio.Event()

        async def wait_turn(self) -> None:
            pass

        async def run(self, shots: Sequence[ShotPictures], tokens: int, *, alone: bool = False) -> tuple[Answer, ...]:
            if len(shots) == 1:
                self._has_both.set()
            await self._has_both.wait()
            raise EngineLost("it died")

    async def scenario() -> None:
        engine = LocalEngine(settings)
        answers = [engine._queue.put(SHOT, 4) for _ in range(3)]
        with pytest.raises(EngineLost, match="ended: it died"):
            await engine._serve_until_lost(DiesWithTwo())  # type: ignore[arg-type]
        assert [pending.suspect for pending in engine._queue._waiting] == [True, True, False]
        assert not any(answer.done() for answer in answers)
        engine._queue.fail_all(EngineLost("enough"))
        await asyncio.gather(*answers, return_exceptions=True)

    asyncio.run(scenario())


def test_shots_of_a_lost_engine_do_not_go_back_to_it(settings: Settings) -> None:
    handed: list[int] = []

    class Dying(NeverLost):
        """Loses its first batch while the other lane waits for shots."""

        async def wait_turn(self) -> None:
            pass

        async def run(self, shots: Sequence[ShotPictures], tokens: int, *, alone: bool = False) -> tuple[Answer, ...]:
            handed.append(len(shots))
            await asyncio.sleep(0.05)
            raise EngineLost("it died")

    async def scenario() -> None:
        engine = LocalEngine(settings)
        answer = engine._queue.put(SHOT, 1)
        with pytest.raises(EngineLost, match="ended: it died"):
            await engine._serve_until_lost(Dying())  # type: ignore[arg-type]
        assert handed == [1]
        assert engine.queue_depth == 1
        assert not answer.done()
        answer.cancel()

    asyncio.run(scenario())
