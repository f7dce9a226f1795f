"""SIGTERM in the middle of batches, SIGKILL of the engine and of the server: nothing accepted is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import psutil

from benchmarks.stress.bars import Bar, at_most, none_of
from benchmarks.stress.kinds import shot
from benchmarks.stress.pictures import small_picture
from benchmarks.stress.raw import Answer, exchange, post_json
from benchmarks.stress.target import Target, target
from tests.helpers import engine_standing_still, wait_until_healthy

CLIENTS = 24
PLAN = {"seconds": 0.3, "batch_tokens": 8}  # shots: each picture costs one token
PATIENCE_SECONDS = 120


def check(times: int) -> list[Bar]:
    """End so many servers in the middle of a batch."""
    return [_terminate(times), *_kill_engine(), *_kill_server()]


def _terminate(times: int) -> Bar:
    wrong = []
    for number in range(times):
        with target(PLAN) as server:
            answers = asyncio.run(ask_and(server, server.process.terminate))
            code = server.process.wait(PATIENCE_SECONDS)
        wrong += [f"{number}: {answer.status}" for answer in answers if answer.status != 200]
        wrong += [f"{number}: exit code {code}"] if code else []
    return none_of(f"SIGTERM in a batch, {times} times, {CLIENTS} requests in hand", "request unanswered", wrong)


def _kill_engine() -> list[Bar]:
    with target(PLAN) as server:
        (engine,) = server.engines()
        answers = asyncio.run(ask_and(server, partial(_kill, engine)))
        began = time.monotonic()
        wait_until_healthy(server.url, server.process)
        took = time.monotonic() - began
    bad = [answer.status for answer in answers if answer.status != 200]
    return [
        none_of(f"SIGKILL of the engine with {CLIENTS} requests in hand", "request lost", bad),
        at_most("healthy again after SIGKILL of the engine", took, 10, "s"),
    ]


def _kill_server() -> list[Bar]:
    with target(PLAN) as server:
        engines = server.engines()
        answers = asyncio.run(ask_and(server, server.process.kill))
        server.process.wait(PATIENCE_SECONDS)
        _, alive = psutil.wait_procs(engines, timeout=PATIENCE_SECONDS)
    with target(PLAN) as server:
        next_one = asyncio.run(exchange(server.port, post_json("/analyze", shot(small_picture()))))
    told = f"{sum(answer.status == 0 for answer in answers)} connections closed, next answer {next_one.status}"
    name = "SIGKILL of the server"
    return [
        none_of(name, "engine left over", alive),
        Bar(name, "the next start is clean", told, next_one.status == 200),
    ]


def _kill(engine: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):  # on a very busy machine, the server may have ended it itself
        engine.kill()


def _received(server: Target) -> float:
    return server.count("qwen_stage_seconds_count", stage="receive")


def _in_hand(server: Target, received: float) -> bool:
    accepted = _received(server) >= received
    return accepted and server.count("qwen_stage_seconds_count", stage="wait") > 0 < server.count("qwen_queue_shots")


async def ask_and(server: Target, do: Callable[[], object], count: int = CLIENTS) -> list[Answer]:
    """Send requests, do something when all are accepted and a batch is in the engine's hands; the answers."""
    request = post_json("/analyze", shot(small_picture()))
    received = _received(server) + count
    with engine_standing_still(server.process):
        asked = [asyncio.create_task(exchange(server.port, request)) for _ in range(count)]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await asyncio.to_thread(_in_hand, server, received):
            assert time.monotonic() < deadline, "no batch came into the engine's hands"
            await asyncio.sleep(0.02)
        do()
    return await asyncio.gather(*asked)
