"""Four times the load, and a burst: what is accepted is answered in time, the rest is told when to come again."""

from __future__ import annotations

import asyncio
import math

from benchmarks.stress.bars import Bar, at_most, none_of, percentile
from benchmarks.stress.health import TIMEOUT_SECONDS, HealthChecks
from benchmarks.stress.kinds import shot
from benchmarks.stress.pictures import small_picture
from benchmarks.stress.raw import Answer, exchange, post_json
from benchmarks.stress.target import target

BATCH_SHOTS = 8
BATCH_SECONDS = 0.4
SHOTS_A_SECOND = BATCH_SHOTS / BATCH_SECONDS
QUEUE = 100
AHEAD = QUEUE + 2 * BATCH_SHOTS  # of a shot that is the last in a full queue: a batch in hand, and its own
TIMES = 4
PLAN = {"seconds": BATCH_SECONDS, "batch_tokens": BATCH_SHOTS}  # each picture costs one token

BURST = 1280
BURST_PLAN = {"seconds": 0.2, "batch_tokens": 64}


def check(seconds: float, burst: int = BURST, patience: float = TIMEOUT_SECONDS) -> list[Bar]:
    """Overload for so long, then a burst; `patience`: seconds that /health may take."""
    return [*_overload(seconds, patience), *_burst(burst, patience)]


def _overload(seconds: float, patience: float) -> list[Bar]:
    with target(PLAN, SERVER__MAX_QUEUE_SHOTS=str(QUEUE)) as server, HealthChecks(server.port, patience) as health:
        answers = asyncio.run(_send(server.port, int(seconds * TIMES * SHOTS_A_SECOND), TIMES * SHOTS_A_SECOND))
    taken = [answer.seconds for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status != 200]
    bad = [answer.status for answer in refused if answer.status != 503 or int(answer.headers.get("retry-after", 0)) < 1]
    name = f"{TIMES} times the load for {seconds:.0f} s ({len(taken)} taken, {len(refused)} refused)"
    # At the rate that was reached: a busy machine is slower than the engine.
    full_queue = AHEAD * seconds / max(1, len(taken) - QUEUE)
    return [
        none_of(name, "refusal but 503 with Retry-After", bad),
        at_most(f"{name}: answers, 99th percentile", percentile(taken, 99), 1.5 * full_queue, "s (1.5 full queues)"),
        at_most(f"{name}: refusals, median", percentile([each.seconds for each in refused], 50), 0.05, "s"),
        at_most(f"{name}: /health, 99th percentile", percentile(health.seconds, 99), 0.05, "s"),
        none_of(f"{name}: {len(health.seconds)} health checks", "failure", health.failures),
    ]


def _burst(count: int, patience: float) -> list[Bar]:
    with target(BURST_PLAN) as server, HealthChecks(server.port, patience) as health:
        answers = asyncio.run(_send(server.port, count, rate=None))
    bad = [answer.status for answer in answers if answer.status not in {200, 503}]
    taken = sum(answer.status == 200 for answer in answers)
    name = f"{count} requests at once ({taken} taken)"
    return [
        none_of(name, "answer but 200 and 503", bad),
        none_of(
            f"{name}: {len(health.seconds)} health checks, slowest {max(health.seconds, default=math.nan):.2f} s",
            "failure",
            health.failures,
        ),
    ]


async def _send(port: int, count: int, rate: float | None) -> list[Answer]:
    """So many requests, each on a connection of its own, at a fixed rate whatever comes back; None: all at once."""
    request = post_json("/analyze", shot(small_picture()))
    loop = asyncio.get_running_loop()
    began = loop.time()
    tasks = []
    for number in range(count):
        if rate is not None:
            await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
        tasks.append(asyncio.create_task(exchange(port, request)))
    return await asyncio.gather(*tasks)
