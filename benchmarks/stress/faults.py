"""An engine that raises, hangs, dies, answers NaN or half a batch, at one call after another: everybody is told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

from benchmarks.stress.bars import Bar, at_most, none_of
from benchmarks.stress.kinds import shot
from benchmarks.stress.pictures import small_picture
from benchmarks.stress.raw import Answer, exchange, post_json
from benchmarks.stress.target import target
from engines.watchdog import FIRST_LIMIT
from problems import TYPE_PREFIX
from tests.helpers import wait_until_healthy

CLIENTS = 12
ALLOWANCE_SECONDS = 8.0  # noticing, the engine's start, and what a busy machine adds
NOTICED_SECONDS = 5.0 + 3.0  # until it is noticed, and until the next engine has started and answered
# What a client may be told of a fault that comes once, beside a good answer.
ONCE = {
    "raise": {"shot-failed"}, "cuda": set(), "die": set(), "half": set(), "nan": {"not-a-number"},
    "hang": set(), "spin": set(), "stop": set(),
}  # fmt: skip
ALWAYS = {
    "raise": "shot-failed",
    "cuda": "engine-lost",
    "die": "engine-lost",
    "half": "engine-lost",
    "nan": "not-a-number",
}


def check(calls: Sequence[int], faults: Sequence[str] = tuple(ONCE)) -> list[Bar]:
    """Each fault at each of these calls, and those that come at once also at every call."""
    wrong: list[str] = []
    slowest = 0.0
    for fault in faults:
        for call in calls:
            answers, seconds = _play(fault, [call])
            told = {_told(answer) for answer in answers} - {"ok"} - ONCE[fault]
            wrong += [f"{fault} at call {call}: {' '.join(sorted(told))}"] if told else []
            slowest = max(slowest, seconds)
        if fault in ALWAYS:
            answers, _ = _play(fault, None)
            told = {_told(answer) for answer in answers} - {ALWAYS[fault]}
            wrong += [f"{fault} at every call: {' '.join(sorted(told))}"] if told else []
    name = f"{len(faults)} faults of an engine, at calls {', '.join(map(str, calls))} and at every call"
    return [
        none_of(f"{name}; {CLIENTS} clients each", "wrong answer", wrong),
        at_most(f"{name}: the slowest answer", slowest, FIRST_LIMIT.wall + ALLOWANCE_SECONDS, "s"),
        at_most("an engine that is stuck in a batch of a known size: answers", _known(), NOTICED_SECONDS, "s"),
    ]


def _known() -> float:
    """The slowest answer where all batches are of one size, and the second one hangs, spins or is stopped."""
    return max(_play(fault, [1], batch_tokens=1)[1] for fault in ("hang", "spin", "stop"))


def _play(fault: str, calls: Sequence[int] | None, batch_tokens: int = 4) -> tuple[list[Answer], float]:
    """All answers, and the seconds until the last one; fails where health does not return."""
    with target({"fault": fault, "calls": calls, "batch_tokens": batch_tokens, "seconds": 0.02}) as server:
        # The first batch of a size may take longer without being stuck.
        warm = [] if calls is None or 0 in calls else asyncio.run(_ask(server.port, 1))
        began = time.monotonic()
        answers = asyncio.run(_ask(server.port, CLIENTS))
        took = time.monotonic() - began
        if calls is not None:
            wait_until_healthy(server.url, server.process)
    return [*warm, *answers], took


async def _ask(port: int, clients: int) -> list[Answer]:
    request = post_json("/analyze", shot(small_picture()))
    return await asyncio.gather(*(exchange(port, request) for _ in range(clients)))


def _told(answer: Answer) -> str:
    if answer.status == 200:
        return "ok"
    return str(json.loads(answer.body)["type"].removeprefix(TYPE_PREFIX)) if answer.body else f"status {answer.status}"
