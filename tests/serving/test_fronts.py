"""`server.http_processes`: several processes read requests for one engine, and nobody notices."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.stress.kinds import shot
from benchmarks.stress.pictures import small_picture
from benchmarks.stress.raw import Answer, exchange, post_json
from benchmarks.stress.signals import ask_and
from benchmarks.stress.target import Target, target
from engines.watchdog import BEAT_SECONDS
from serving.fronts import HUSHED_LOOKS, STUCK_LOOKS
from serving.metrics_sum import add_up
from telemetry import Metrics
from tests.helpers import ROOT, engine_standing_still, free_port, server_environment, wait_until_healthy

PLAN = {"seconds": 0.2, "batch_tokens": 8}  # shots: each picture costs one token
REQUEST = post_json("/analyze", shot(small_picture()))
PATIENCE_SECONDS = 60.0
FRONTS = 2


@pytest.fixture
def server() -> Iterator[Target]:
    with target(PLAN, SERVER__HTTP_PROCESSES=str(FRONTS), SERVER__MAX_QUEUE_SHOTS="60") as running:
        yield running


def fronts_of(server: Target) -> dict[int, int]:
    """Process id to how many connections it has that no client has closed, of those that have any."""
    held = {}
    for child in psutil.Process(server.process.pid).children():
        connections = [each for each in child.net_connections("tcp") if each.laddr.port == server.port]
        if open_ones := sum(each.status == psutil.CONN_ESTABLISHED for each in connections):
            held[child.pid] = open_ones
    return held


@contextmanager
def connected(server: Target, count: int) -> Iterator[None]:
    """So many connections at the same time, each of which was answered."""
    with ExitStack() as stack:
        for _ in range(count):
            assert stack.enter_context(server.client()).get("/health").status_code == 200
        yield


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def ask(server: Target, count: int) -> Sequence[Answer]:
    """Ask at the same time."""
    return await asyncio.gather(*(exchange(server.port, REQUEST) for _ in range(count)))


def test_connections_are_shared_out_and_counted_together(server: Target) -> None:
    with connected(server, 8):
        assert sorted(fronts_of(server).values()) == [4, 4]
    answers = asyncio.run(ask(server, 24))
    assert [answer.status for answer in answers] == [200] * 24
    assert len({answer.headers["x-model"] for answer in answers}) == 1
    assert server.count("qwen_shots_total", outcome="ok") == 24
    assert server.count("qwen_requests_total", route="/analyze", status="200") == 24
    assert server.count("qwen_batch_shots_sum") == 24
    assert server.count("qwen_queue_shots") == 0


def test_one_queue_for_all(server: Target) -> None:
    def is_full() -> bool:
        return server.count("qwen_requests_total", route="/analyze", status="503") > 0

    async def ask_too_much() -> Sequence[Answer]:
        with engine_standing_still(server.process):
            asked = asyncio.ensure_future(ask(server, 160))
            await asyncio.to_thread(wait_for, is_full)
        return await asked

    answers = asyncio.run(ask_too_much())
    refused = [answer for answer in answers if answer.status == 503]
    assert {answer.status for answer in answers} == {200, 503}
    assert len(answers) - len(refused) >= 60
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert server.count("qwen_queue_shots") == 0


def test_a_closed_terminal_answers_what_was_accepted(server: Target) -> None:
    def hang_up() -> None:
        everybody = psutil.Process(server.process.pid).children(recursive=True)
        for each in (*everybody, server.process):
            each.send_signal(signal.SIGHUP)

    answers = asyncio.run(ask_and(server, hang_up))
    assert [answer.status for answer in answers] == [200] * 24
    assert server.process.wait(PATIENCE_SECONDS) == 0
    assert "resource_tracker" not in server.log.read_text()


def test_a_stop_answers_what_was_accepted(server: Target) -> None:
    answers = asyncio.run(ask_and(server, server.process.terminate))
    assert [answer.status for answer in answers] == [200] * 24
    assert server.process.wait(PATIENCE_SECONDS) == 0


def test_a_front_that_is_killed_takes_its_own_connections_only(server: Target) -> None:
    killed: dict[int, int] = {}

    def kill() -> None:
        held = fronts_of(server)
        front = min(held, key=lambda each: held[each])
        killed[front] = held[front]
        psutil.Process(front).kill()

    answers: Sequence[Answer] = asyncio.run(ask_and(server, kill))
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [0] * statuses.count(0) + [200] * statuses.count(200)
    assert 0 < statuses.count(0) <= 12
    assert [statuses.count(0)] == list(killed.values())
    wait_for(lambda: server.count("qwen_queue_shots") == 0)
    answers = asyncio.run(ask(server, 24))
    assert [answer.status for answer in answers] == [200] * 24
    assert "starting it again" in server.log.read_text()
    assert not killed.keys() & {child.pid for child in psutil.Process(server.process.pid).children()}


def test_a_front_that_stands_still_is_ended_and_the_others_go_on(server: Target) -> None:
    with connected(server, 4):
        stuck = min(fronts_of(server))
        psutil.Process(stuck).suspend()
        time.sleep(HUSHED_LOOKS * BEAT_SECONDS + 1)
        answers = asyncio.run(ask(server, 24))
        assert [answer.status for answer in answers] == [200] * 24
        wait_for(lambda: not psutil.pid_exists(stuck))
    assert f"is stuck: no sign of life for {STUCK_LOOKS * BEAT_SECONDS:.0f} s" in server.log.read_text()
    wait_for(lambda: "starting it again" in server.log.read_text())
    assert [answer.status for answer in asyncio.run(ask(server, 24))] == [200] * 24


def test_who_goes_away_leaves_the_queue(server: Target) -> None:
    async def leave() -> None:
        with engine_standing_still(server.process):
            asked = [asyncio.create_task(exchange(server.port, REQUEST)) for _ in range(40)]
            await asyncio.to_thread(wait_for, lambda: server.count("qwen_queue_shots") > 8)
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    asyncio.run(leave())
    wait_for(lambda: server.count("qwen_queue_shots") == 0)
    assert server.count("qwen_batch_shots_sum") < 40


def test_the_engine_dies_and_comes_back(server: Target) -> None:
    asyncio.run(exchange(server.port, REQUEST))
    (engine,) = server.engines()
    answers = asyncio.run(ask_and(server, engine.kill, 16))
    assert [answer.status for answer in answers] == [200] * 16
    wait_until_healthy(server.url, server.process)
    assert server.count("qwen_engines_lost_total") == 1


def test_nothing_is_left_when_the_server_is_killed(server: Target) -> None:
    children = psutil.Process(server.process.pid).children()
    server.process.kill()
    server.process.wait(PATIENCE_SECONDS)
    assert psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1] == []


def test_a_model_that_can_not_be_loaded_ends_the_server(tmp_path: Path) -> None:
    environment = server_environment(free_port(), MODEL__NAME=str(tmp_path), SERVER__HTTP_PROCESSES="2")
    ran = subprocess.run(
        [sys.executable, "server.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert "ERROR: " in ran.stderr
    assert "Traceback" not in ran.stderr


def test_counts_add_up() -> None:
    one, other = Metrics(), Metrics()
    one.request("/analyze", 200, 0.2, None)
    other.request("/analyze", 200, 3.0, None)
    other.request("/health", 503, 0.1, "queue-full")
    other.holds(1, 5)
    lines = add_up([one.text(7), other.text(0)]).decode().splitlines()
    assert 'qwen_requests_total{route="/analyze",status="200"} 2.0' in lines
    assert 'qwen_requests_total{route="/health",status="503"} 1.0' in lines
    assert 'qwen_request_seconds_bucket{le="0.25",route="/analyze"} 1.0' in lines
    assert 'qwen_request_seconds_bucket{le="+Inf",route="/analyze"} 2.0' in lines
    assert "qwen_queue_shots 7.0" in lines
    assert 'qwen_gpu_memory_bytes{engine="1"} 5.0' in lines
    assert add_up([one.text(7)]).decode().splitlines()[0].startswith("# HELP")
    (began,) = [line for line in lines if line.startswith("process_start_time_seconds ")]
    assert float(began.split()[1]) == pytest.approx(psutil.Process().create_time(), abs=2)
