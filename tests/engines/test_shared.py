"""An engine that several processes share, when one of them is gone."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from engines.base import ShotPictures, Status
from engines.host import EngineHost
from engines.shared import SharedEngine
from qwen_shots.errors import EngineLost
from serving.front import UpToDate
from serving.metrics_sum import add_up
from telemetry import Metrics
from tests.fakes import FakeEngine
from tests.helpers import PATIENCE_SECONDS

SHOT = ShotPictures((np.zeros((28, 28, 3), np.uint8),))


def test_nobody_waits_for_an_engine_whose_process_is_gone() -> None:
    async def scenario() -> None:
        ours, theirs = multiprocessing.Pipe()
        engine = SharedEngine(ours, "a model", lambda: b"")
        await engine.start()
        early = asyncio.create_task(engine.look(SHOT))
        await asyncio.sleep(0)
        theirs.close()
        for work in (early, engine.look(SHOT), engine.counts()):
            with pytest.raises(EngineLost):
                await asyncio.wait_for(work, PATIENCE_SECONDS)
        await engine.close()

    asyncio.run(scenario())


@contextmanager
def sharing(host: EngineHost, name: str, metrics: Metrics) -> Iterator[SharedEngine]:
    """A process that shares the engine, played in this one; at the end its pipe is cut as by its death."""
    ours, theirs = multiprocessing.Pipe()
    engine = SharedEngine(theirs, "a model", lambda: metrics.text(0))
    host.welcome(ours, name)
    yield engine
    with socket.socket(fileno=os.dup(theirs.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def test_what_a_process_counted_is_not_forgotten_when_it_ends() -> None:
    """A total that falls would be taken for a restart, and all of it be counted again."""
    line = 'qwen_requests_total{route="/analyze",status="200"} '

    async def scenario() -> None:
        host = EngineHost(FakeEngine([]), lambda: Metrics().text(0), add_up)
        first, second = Metrics(), Metrics()
        first.request("/analyze", 200, None, None)
        second.request("/analyze", 200, None, None)
        with sharing(host, "first", first) as engine:
            await engine.start()
            before = (await engine.counts()).decode()
        while host._guests:
            await asyncio.sleep(0.01)
        with sharing(host, "second", second) as engine:
            await engine.start()
            after = (await engine.counts()).decode()
        assert f"{line}1.0" in before
        assert f"{line}2.0" in after
        # What it held is gone with it.
        assert process_memory(after) < 2.5 * process_memory(Metrics().text(0).decode())

    asyncio.run(scenario())


def test_a_process_learns_the_state_when_it_asks() -> None:
    """Nobody tells it here that the model is loaded by now."""
    seen: list[Status] = []

    async def scenario() -> None:
        fake = FakeEngine([])
        fake.status = Status.LOADING
        host = EngineHost(fake, lambda: b"", add_up)
        with sharing(host, "front", Metrics()) as engine:
            await engine.start()
            await engine.refresh()
            seen.append(engine.status)
            fake.status = Status.HEALTHY
            await asyncio.sleep(0.05)
            seen.append(engine.status)
            await engine.refresh()
            seen.append(engine.status)

    asyncio.run(scenario())
    assert seen == [Status.LOADING, Status.LOADING, Status.HEALTHY]


def test_no_request_is_answered_by_a_state_of_a_moment_ago() -> None:
    seen: list[Status] = []

    async def request(engine: SharedEngine) -> None:
        async def app(*_: object) -> None:
            seen.append(engine.status)

        async def nothing(*_: object) -> Any:
            pytest.fail("the app's business")

        await UpToDate(app, engine)({"type": "http"}, nothing, nothing)

    async def scenario() -> None:
        fake = FakeEngine([])
        host = EngineHost(fake, lambda: b"", add_up)
        fake.status = Status.LOADING
        with sharing(host, "front", Metrics()) as engine:
            await engine.start()
            await request(engine)
            fake.status = Status.HEALTHY
            await request(engine)
        ours, theirs = multiprocessing.Pipe()
        alone = SharedEngine(ours, "a model", lambda: b"")
        await alone.start()
        theirs.close()
        await asyncio.wait_for(request(alone), PATIENCE_SECONDS)

    asyncio.run(scenario())
    assert seen == [Status.LOADING, Status.HEALTHY, Status.LOADING]


def process_memory(text: str) -> float:
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("process_resident_memory"))
