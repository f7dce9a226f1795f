"""Bodies just under the limit that used to cost more than their size: names, values, levels, escapes, wide letters."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

from benchmarks.stress.bars import Bar, at_most, none_of, percentile
from benchmarks.stress.health import HealthChecks
from benchmarks.stress.raw import post
from benchmarks.stress.target import MIB, Target, target

CPU_SECONDS = 1.0
MEMORY_MIB = 64.0
MEMORY_TIMES = 4.0
HEALTH_SECONDS = 0.05
HEALTH_PAUSE = 0.01
REFUSED = {400, 413, 422}

Make = Callable[[int], bytes]


def _repeated(before: bytes, part: bytes, after: bytes) -> Make:
    return lambda size: before + part * ((size - len(before) - len(after)) // len(part)) + after


def _names(name: bytes) -> Make:
    """An object of so many names that all differ."""

    def make(size: int) -> bytes:
        member = b'"%b%09d":1,'
        count = size // len(member % (name, 0)) - 1
        return b"{" + b"".join(member % (name, number) for number in range(count)) + b'"z":1}'

    return make


def _shot(before: bytes, part: bytes, after: bytes = b"") -> Make:
    """A shot with one picture that is no picture."""
    return _repeated(
        b'{"shot_id":1,"images":["' + before, part, after + b'"],"start_time":0,"end_time":1,"duration":1}'
    )


BODIES: dict[str, Make] = {
    "short names": _names(b""),
    "names of 100 letters": _names(b"a" * 100),
    "names of 5,000 letters": _names(b"a" * 5000),
    "empty lists": _repeated(b"[", b"[],", b"[]]"),
    "empty objects": _repeated(b"[", b"{},", b"{}]"),
    "numbers": _repeated(b"[", b"1,", b"1]"),
    "empty texts": _repeated(b"[", b'"",', b'""]'),
    "lists in lists": _repeated(b"", b"[", b""),
    "objects in objects": _repeated(b"", b'{"a":', b""),
    "texts with nothing between": _repeated(b"[", b'""', b"]"),
    "quotation marks": _shot(b"", b'\\"'),
    "backslashes": _shot(b"", b"\\\\"),
    "escaped letters": _shot(b"", b"\\u002B"),
    "PHP's slashes": _shot(b"", b"A" * 62 + b"\\/"),
    "wide letters": _shot(b"", "\N{CLAPPER BOARD}".encode()),
    "a picture with one wide letter": _shot(b"", b"A", "\N{CLAPPER BOARD}".encode()),
    "a picture with one wide escape": _shot(b"\\ud83c\\udfac", b"A"),
    "one picture": _shot(b"", b"A"),
    "one text that does not end": _repeated(b'{"shot_id":"', b"A", b""),
    "digits": _repeated(b"", b"1", b""),
    "blanks": _repeated(b"", b" ", b"1"),
    "values of a field": _repeated(b'{"audio_features":{"mfcc_mean":[', b"0,", b"0]}}"),
}


def check(mib: int = 64) -> list[Bar]:
    """Each kind once, as large as a body may be."""
    with target({}, SERVER__MAX_BODY_MIB=str(mib)) as server:
        _send(server.port, b"{}")
        bodies = [(kind, make(mib * MIB)) for kind, make in BODIES.items()]
        with HealthChecks(server.port, pause=HEALTH_PAUSE) as health:
            seen = [(kind, len(body), *_measured(server, body)) for kind, body in bodies]
    name = f"{len(seen)} kinds of bodies of {mib} MiB"
    seconds, slowest = max((cpu, kind) for kind, _, _, cpu, _ in seen)
    times, largest = max((grown / max(MEMORY_MIB, MEMORY_TIMES * size / MIB), kind) for kind, size, _, _, grown in seen)
    wrong = [f"{kind}: {status}" for kind, _, status, *_ in seen if status not in REFUSED]
    return [
        none_of(name, "answer but a refusal", wrong),
        at_most(f"{name}, the slowest: {slowest}", seconds, CPU_SECONDS, "processor seconds of the server"),
        at_most(f"{name}, the largest: {largest}", times, 1.0, f"of {MEMORY_TIMES:g} times its size in memory"),
        at_most(
            f"{name}: {len(health.seconds)} health checks meanwhile, 99th percentile",
            percentile(health.seconds, 99), HEALTH_SECONDS, "s",
        ),
        none_of(f"{name}: health checks", "failure", health.failures),
    ]  # fmt: skip


def _measured(server: Target, body: bytes) -> tuple[int, float, float]:
    """The status, processor seconds, and MiB of memory that came on top."""
    before = server.memory_mib
    server.forget_peak()
    began = server.cpu_seconds
    status = _send(server.port, body)
    return status, server.cpu_seconds - began, server.peak_mib - before


def _send(port: int, body: bytes) -> int:
    """Send all of it though the answer may come before; the status of the answer. With no asyncio, which copies."""
    head = post("/analyze", body[:0]).replace(b"Content-Length: 0", b"Content-Length: %d" % len(body))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with suppress(ConnectionError):
            connection.sendall(head)
            connection.sendall(body)
        return int(connection.makefile("rb").readline().split()[1])
