"""Connections that send next to nothing, and clients that go away: others hardly notice."""

from __future__ import annotations

import asyncio
import resource
import time
from contextlib import suppress

from benchmarks.stress.bars import Bar, at_most, growth_percent, percentile
from benchmarks.stress.kinds import shot
from benchmarks.stress.pictures import small_picture
from benchmarks.stress.raw import JSON_LINE, KEY_LINE, exchange, post_json
from benchmarks.stress.target import Target, target
from tests.helpers import engine_standing_still

SLOW = 500
DRIP_SECONDS = 1.0
MAY_GROW_PERCENT = 20.0
PLAN = {"seconds": 0.02, "batch_tokens": 64}

LEAVERS = 200
WITHIN_SECONDS = 5.0


def check_slow(connections: int, requests: int, rounds: int) -> list[Bar]:
    """Good traffic alone and beside slow connections, in turn."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * connections)), hard))
    with target(PLAN) as server:
        alone, beside = asyncio.run(_in_turn(server, connections, requests, rounds))
    name = f"{connections} slow connections"
    told = f"% more than {1000 * percentile(alone, 99):.0f} ms"
    grown = growth_percent(percentile(alone, 99), percentile(beside, 99))
    return [at_most(f"{name}: good answers, 99th percentile", grown, MAY_GROW_PERCENT, told)]


async def _in_turn(server: Target, connections: int, requests: int, rounds: int) -> tuple[list[float], list[float]]:
    alone: list[float] = []
    beside: list[float] = []
    await _good(server.port, requests)  # warms up
    for _ in range(rounds):
        alone += await _good(server.port, requests)
        slow = [asyncio.create_task(_drip(server.port, number)) for number in range(connections)]
        await asyncio.sleep(1)
        beside += await _good(server.port, requests)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    return alone, beside


async def _good(port: int, count: int) -> list[float]:
    request = post_json("/analyze", shot(small_picture()))
    answers = [await exchange(port, request) for _ in range(count)]
    assert all(answer.status == 200 for answer in answers)
    return [answer.seconds for answer in answers]


async def _drip(port: int, number: int) -> None:
    """A byte a second: of the headers, or of the body; again when the server closes the connection."""
    head = f"POST /analyze HTTP/1.1\r\nHost: localhost\r\n{KEY_LINE}{JSON_LINE}"
    begin = f"{head}Content-Length: 100000\r\n\r\n" if number % 2 else head + "X-Slow: "
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(begin.encode())
                while not writer.is_closing():
                    await asyncio.sleep(DRIP_SECONDS * (0.5 + number % 10 / 10))
                    writer.write(b" ")
                    await writer.drain()
            finally:
                writer.close()
        await asyncio.sleep(DRIP_SECONDS)


def check_leavers(clients: int, within: float = WITHIN_SECONDS) -> list[Bar]:
    """So many clients send a shot and go away; then one stays, and is answered within so many seconds."""
    with target({"seconds": 0.5, "batch_tokens": 8}) as server:
        asyncio.run(_leave(server, clients))
        began = time.monotonic()
        asyncio.run(exchange(server.port, post_json("/analyze", shot(small_picture()))))
        answered = time.monotonic() - began
        while server.count("qwen_queue_shots") and time.monotonic() - began < 2 * within:
            time.sleep(0.05)
        empty = time.monotonic() - began
        gone = server.count("qwen_requests_total", status="499")
        looked = server.count("qwen_batch_shots_sum") - 1
    name = f"{clients} clients that go away"
    return [
        at_most(f"{name} ({gone:.0f} seen): the next answer", answered, within, "s"),
        at_most(f"{name}: the queue is empty after", empty, within, "s"),
        at_most(f"{name}: looked at for nobody", looked, clients / 2, "shots"),
    ]


async def _leave(server: Target, clients: int) -> None:
    request = post_json("/analyze", shot(small_picture()))
    writers = []
    with engine_standing_still(server.process):
        for _ in range(clients):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            await writer.drain()
            writers.append(writer)
        while server.count("qwen_queue_shots") < clients / 2:
            await asyncio.sleep(0.05)
        for writer in writers:
            writer.transport.abort()
