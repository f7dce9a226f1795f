"""The server on real Ray: replicas that share the work, die, are too few, or are sent home."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import httpx
import pytest

from settings import Settings
from tests.deploy import cluster
from tests.deploy.fakes import CURSED_ROWS, BrokenEngine, FixedCostEngine
from tests.helpers import AUTH, assert_problem, encode, scene
from tests.openai_server import FakeServer

# The warnings are those of Ray's own code.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]

SECONDS_A_SHOT = 0.1
MakeEngine = Callable[[Settings], FixedCostEngine]
ENGINE = partial(FixedCostEngine, seconds=SECONDS_A_SHOT)
# So long that the engines are what is waited for, and not the way to them.
SLOW_ENGINE = partial(FixedCostEngine, seconds=0.25)


def start(url: str, settings: Settings, replicas: int, engine: MakeEngine = ENGINE, **server: int) -> None:
    bounds = {"min_replicas": replicas, "max_replicas": replicas}
    cluster.deploy(url, cluster.changed(settings, cluster=bounds, server=server), engine)


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_replicas_share_the_work(cluster_url: str, settings: Settings, replicas: int) -> None:
    start(cluster_url, settings, replicas, SLOW_ENGINE)
    answers = asyncio.run(cluster.send(cluster_url, 40 * replicas, 24 * replicas))
    assert {answer.status_code for answer in answers} == {200}
    shares = Counter(map(cluster.pid, answers))
    assert len(shares) == replicas
    assert min(shares.values()) >= 20, shares  # half of an even share


def test_a_killed_replica_loses_no_shot(cluster_url: str, settings: Settings) -> None:
    start(cluster_url, settings, 2)

    async def scenario() -> list[httpx.Response]:
        before = await cluster.send(cluster_url, 8, 8)
        sending = asyncio.create_task(cluster.send(cluster_url, 120, 60))
        await asyncio.sleep(1)
        os.kill(min(cluster.pids(before)), signal.SIGKILL)
        return await sending

    answers = asyncio.run(scenario())
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["shot_id"] for answer in answers) == list(range(120))
    deadline = time.monotonic() + 60
    while len(cluster.pids(asyncio.run(cluster.send(cluster_url, 20, 20)))) < 2:
        assert time.monotonic() < deadline, "the killed replica did not come back"


def test_too_much_is_refused_with_the_time_to_come_again(cluster_url: str, settings: Settings) -> None:
    start(cluster_url, settings, 1, max_queue_shots=20)
    answers = asyncio.run(cluster.send(cluster_url, 60, 60))
    taken = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(taken) >= 20
    assert len(refused) >= 20
    for answer in refused:
        assert_problem(answer, 503, "max_queue_shots")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert httpx.get(f"{cluster_url}/health").status_code == 200


def test_a_shot_that_fails_fails_alone(cluster_url: str, settings: Settings) -> None:
    start(cluster_url, settings, 1)
    good, cursed = cluster.small_shot(1), cluster.small_shot(2, encode(scene(2, CURSED_ROWS, 56)))
    answer = httpx.post(f"{cluster_url}/analyze", json=cursed, headers=AUTH)
    assert_problem(answer, 500, "NaN")
    batch = httpx.post(f"{cluster_url}/analyze_batch", json={"shots": [cursed, good]}, headers=AUTH).json()
    assert [row["shot_id"] for row in batch["results"]] == [1]
    assert [row["type"] for row in batch["errors"]] == [answer.json()["type"]]


def test_shots_of_a_client_that_went_away_are_not_looked_at(cluster_url: str, settings: Settings) -> None:
    start(cluster_url, settings, 1, partial(FixedCostEngine, seconds=1.0))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{cluster_url}/analyze_batch",
            json={"shots": [cluster.small_shot(number) for number in range(10)]},
            headers=AUTH,
            timeout=1.0,
        )
    began = time.monotonic()
    (answer,) = asyncio.run(cluster.send(cluster_url, 1, 1))
    assert answer.status_code == 200
    assert time.monotonic() - began < 6  # ten shots would have taken 10 s


def test_a_stop_answers_what_was_accepted(cluster_url: str, settings: Settings) -> None:
    from ray import serve

    start(cluster_url, settings, 1)

    async def scenario() -> list[httpx.Response]:
        sending = asyncio.create_task(cluster.send(cluster_url, 40, 40))
        await asyncio.sleep(1.5)
        await asyncio.to_thread(serve.delete, cluster.NAME)
        return await sending

    answers = asyncio.run(scenario())
    assert [answer.status_code for answer in answers] == [200] * 40


def test_a_model_that_can_not_be_loaded(cluster_url: str, settings: Settings) -> None:
    with pytest.raises(RuntimeError, match="engine"):
        start(cluster_url, settings, 1, partial(BrokenEngine, seconds=0.0))
    deadline = time.monotonic() + 20
    while (answer := httpx.get(f"{cluster_url}/health")).json()["status"] != "degraded":
        assert answer.status_code == 503
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_replicas_are_added_when_shots_wait(cluster_url: str, settings: Settings) -> None:
    bounds = {"min_replicas": 1, "max_replicas": 3, "target_replica_shots": 4}
    cluster.deploy(cluster_url, cluster.changed(settings, cluster=bounds), ENGINE)
    assert len(cluster.pids(asyncio.run(cluster.send(cluster_url, 8, 2)))) == 1
    answers = asyncio.run(cluster.send(cluster_url, 900, 48))
    assert {answer.status_code for answer in answers} == {200}
    assert len(cluster.pids(answers)) == 3


def test_endpoints_need_no_replicas(cluster_url: str, settings: Settings) -> None:
    endpoint = FakeServer()
    endpoint.start()
    try:
        remote = {"engine": "remote", "endpoints": [endpoint.url]}
        cluster.deploy(cluster_url, cluster.changed(settings, model=remote), None)
        (answer,) = asyncio.run(cluster.send(cluster_url, 1, 1))
    finally:
        endpoint.stop()
    assert answer.json()["caption"] == "A fake caption"
