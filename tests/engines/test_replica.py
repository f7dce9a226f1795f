"""The hold on an engine process at odd moments: given up while it starts, answers, or will not end."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engines.base import NoObserver, ShotPictures, ShotReading, Status
from engines.local import LocalEngine
from engines.messages import receive
from engines.replica import Replica
from engines.watchdog import Spent
from engines.worker import Answers, Hungry, Ready
from qwen_shots.errors import EngineLost
from settings import Settings
from tests.engines import faulty
from tests.engines.fake_gpus import READING, SIDE
from tests.engines.faulty import Plan
from tests.helpers import PATIENCE_SECONDS

SHOT = ShotPictures((np.zeros((SIDE, SIDE, 3), np.uint8),))
# More than a pipe holds.
LARGE = ShotPictures((np.zeros((1120, 1120, 3), np.uint8),))


@pytest.fixture(autouse=True)
def good_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Engine processes without a model and without faults."""
    monkeypatch.setattr("engines.worker.main", partial(faulty.main, Plan("none", tmp_path / "calls")))
    monkeypatch.setattr("engines.local.FIRST_RESTART_SECONDS", 0.05)


async def until(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("turns", range(4))
def test_an_answer_in_the_moment_of_the_loss_keeps_no_lane_alive(settings: Settings, turns: int) -> None:
    async def scenario() -> None:
        engine = LocalEngine(settings)
        replica = Replica(settings, 0, NoObserver())  # its other end is here
        stuck = asyncio.Event()

        async def watch() -> None:
            await stuck.wait()

        replica.watch = watch  # type: ignore[method-assign]
        answer = engine._queue.put(SHOT, 1)
        serving = asyncio.create_task(engine._serve_until_lost(replica))
        assert replica._theirs is not None
        await asyncio.to_thread(receive, replica._theirs)
        await asyncio.sleep(0.05)
        stuck.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        replica._on_message(Answers(0, (READING,), Spent(0, 0)))
        done, _ = await asyncio.wait({serving}, timeout=PATIENCE_SECONDS)
        assert done
        assert isinstance(serving.exception(), EngineLost)
        assert answer.done() or engine.queue_depth == 1
        answer.cancel()

    asyncio.run(scenario())


def test_a_batch_that_is_to_be_alone_has_the_process_for_itself(settings: Settings) -> None:
    async def scenario() -> None:
        replica = Replica(settings, 0, NoObserver())  # its other end is here
        assert replica._theirs is not None
        await replica.wait_turn()
        first = asyncio.create_task(replica.run([SHOT], 1))
        assert (await asyncio.to_thread(receive, replica._theirs)).number == 0
        replica._on_message(Hungry(0))
        await replica.wait_turn()
        alone = asyncio.create_task(replica.run([SHOT], 1, alone=True))
        turn = asyncio.create_task(replica.wait_turn())
        await asyncio.sleep(0.05)
        assert not replica._theirs.poll()
        replica._on_message(Answers(0, (READING,), Spent(0, 0)))
        assert await first == (READING,)
        assert (await asyncio.to_thread(receive, replica._theirs)).number == 1
        replica._on_message(Hungry(1))
        await asyncio.sleep(0.05)
        assert not turn.done()
        replica._on_message(Answers(1, (READING,), Spent(0, 0)))
        assert await alone == (READING,)
        await turn

    asyncio.run(scenario())


def test_a_start_that_is_given_up_in_the_moment_it_succeeds_is_given_up(settings: Settings) -> None:
    async def scenario() -> None:
        replica = Replica(settings, 0, NoObserver())
        exact = replica._on_message

        def give_up(message: object) -> None:
            exact(message)
            if isinstance(message, Ready):
                starting.cancel()

        replica._on_message = give_up  # type: ignore[method-assign]
        starting = asyncio.create_task(replica.start(60))
        await asyncio.wait({starting})
        assert starting.cancelled()
        await replica.close()

    asyncio.run(scenario())


def test_a_stop_in_the_middle_of_a_start_leaves_no_process(settings: Settings) -> None:
    async def scenario() -> None:
        engine = LocalEngine(settings)
        await engine.start()
        await until(lambda: engine._replicas)
        await engine.close()
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(scenario())
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
    assert left == []


def test_a_stop_while_the_model_loads_does_not_wait_for_it(settings: Settings) -> None:
    async def scenario() -> None:
        engine = LocalEngine(settings)
        await engine.start()
        await until(lambda: engine.pids)
        (replica,) = engine._replicas.values()
        await engine.close()
        assert replica.exit_code == -signal.SIGKILL  # it reads no goodbye before it has loaded

    asyncio.run(scenario())


def test_while_a_lost_engine_is_on_its_way_out_health_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()
    close = Replica.close

    async def slow(replica: Replica) -> None:
        await ended.wait()
        await close(replica)

    async def scenario() -> None:
        engine = LocalEngine(settings)
        await engine.start()
        await until(lambda: engine.status is Status.HEALTHY)
        monkeypatch.setattr(Replica, "close", slow)
        os.kill(engine.pids[0], signal.SIGKILL)
        await until(lambda: engine.status is Status.DEGRADED)
        with pytest.raises(EngineLost):
            await engine.look(SHOT)
        ended.set()
        await until(lambda: engine.status is Status.HEALTHY)
        assert isinstance(await engine.look(SHOT), ShotReading)
        await engine.close()

    asyncio.run(scenario())


def test_a_process_that_will_not_end_does_not_hold_the_server_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose GPU's driver hangs: it neither reads nor dies."""
    monkeypatch.setattr("engines.replica.CLOSE_SECONDS", 0.1)

    async def scenario() -> None:
        replica = Replica(settings, 0, NoObserver())
        await replica.start(60)
        assert replica.pid is not None
        os.kill(replica.pid, signal.SIGSTOP)
        looking = asyncio.create_task(replica.run([LARGE], 1))
        await asyncio.sleep(0.2)
        looking.cancel()
        monkeypatch.setattr(replica._process, "kill", lambda: None)
        rescue = threading.Timer(10, os.kill, (replica.pid, signal.SIGKILL))
        rescue.start()
        closing = asyncio.create_task(replica.close())
        await asyncio.sleep(0.2)
        assert replica._process.is_alive()  # else the loop stood still until the rescue came
        rescue.cancel()
        os.kill(replica.pid, signal.SIGKILL)
        await closing

    asyncio.run(scenario())


def test_an_engine_is_started_again_though_no_file_was_left_at_first(settings: Settings) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scenario() -> None:
        engine = LocalEngine(settings)
        await engine.start()
        await until(lambda: engine.status is Status.HEALTHY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))  # no further one can be opened
        try:
            os.kill(engine.pids[0], signal.SIGKILL)
            await until(lambda: engine.status is Status.DEGRADED)
            await asyncio.sleep(0.5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await until(lambda: engine.status is Status.HEALTHY)
        assert isinstance(await engine.look(SHOT), ShotReading)
        await engine.close()

    asyncio.run(scenario())
