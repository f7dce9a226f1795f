"""Batches of plain 8K frames, a few hundred bytes a kilopixel: whole batches of them fit into bounded memory."""

from __future__ import annotations

import asyncio
import io

from PIL import Image

from benchmarks.stress.bars import Bar, at_most, none_of, percentile
from benchmarks.stress.health import HealthChecks
from benchmarks.stress.kinds import shot
from benchmarks.stress.raw import Answer, exchange, post_json
from benchmarks.stress.target import target

MEMORY_MIB = 1024.0
HEALTH_SECONDS = 0.05


def check(batches: int = 2, shots: int = 10, frames: int = 5) -> list[Bar]:
    """So many batches at once."""
    file = io.BytesIO()
    Image.new("RGB", (7680, 4320), (90, 60, 30)).save(file, "PNG", compress_level=1)
    body = {"shots": [shot(*[file.getvalue()] * frames) | {"shot_id": number} for number in range(shots)]}
    request = post_json("/analyze_batch", body)
    with target({"batch_tokens": 10_000}) as server:
        asyncio.run(_send(server.port, post_json("/analyze_batch", {"shots": body["shots"][:1]}), 1))
        idle = server.memory_mib
        server.forget_peak()
        with HealthChecks(server.port) as health:
            answers = asyncio.run(_send(server.port, request, batches))
        peak = server.peak_mib
    name = f"{batches} batches at once of {shots} shots of {frames} frames at 8K, {len(request) / 2**20:.1f} MiB each"
    bad = [answer.status for answer in answers if answer.status != 200 or b'"errors":[]' not in answer.body]
    return [
        none_of(name, "answer but 200", bad),
        at_most(name, peak - idle, MEMORY_MIB, f"MiB above {idle:.0f} MiB"),
        at_most(f"{name}: /health, 99th percentile", percentile(health.seconds, 99), HEALTH_SECONDS, "s"),
        none_of(f"{name}: {len(health.seconds)} health checks", "failure", health.failures),
    ]


async def _send(port: int, request: bytes, times: int) -> list[Answer]:
    return await asyncio.gather(*(exchange(port, request) for _ in range(times)))
