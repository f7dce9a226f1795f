"""Thousands of wrong requests: the server refuses each, lives on, and holds no more memory than before."""

from __future__ import annotations

import asyncio
from collections import Counter

from benchmarks.stress.bars import Bar, at_most, growth_percent, none_of
from benchmarks.stress.kinds import KINDS
from benchmarks.stress.raw import Answer, send_mixed
from benchmarks.stress.target import Target, target

AT_ONCE = 16
MAY_GROW_PERCENT = 5.0
NAME = "malformed requests"


def check(count: int) -> list[Bar]:
    """Send so many, after a tenth of them to warm up."""
    with target({}) as server:
        _send(server, count // 10, seed=1)
        before = server.memory_mib
        answers = _send(server, count, seed=2)
        after = server.memory_mib
        with server.client() as client:
            alive = server.process.poll() is None and client.get("/health").status_code == 200
        failures = server.count("qwen_requests_total", status="500")
        tracebacks = server.log.read_text(encoding="utf-8", errors="replace").count("Traceback")
    name = f"{count} {NAME} of {len(KINDS)} kinds"
    bad = [f"{kind}: {answer.status}" for kind, answer in answers if answer.status >= 500 or answer.status == 200]
    statuses = Counter(answer.status for _, answer in answers)
    told = ", ".join(f"{times} {status or 'closed'}" for status, times in sorted(statuses.items()))
    return [
        none_of(name, "5xx or 200", bad),
        Bar(name, "the server lives, its log has no traceback", told, alive and failures == tracebacks == 0),
        at_most(name, growth_percent(before, after), MAY_GROW_PERCENT, f"% more memory than {before:.0f} MiB"),
    ]


def _send(server: Target, count: int, seed: int) -> list[tuple[str, Answer]]:
    sending = send_mixed(server.port, KINDS, count, seed=seed, at_once=AT_ONCE, ends=lambda kind: "early" in kind)
    return asyncio.run(sending)
