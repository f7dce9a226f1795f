# ruff: noqa: E501 - tables
"""Thousands of requests that HTTP allows or forbids, and bodies that are small and costly: each gets its answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import zlib
from collections import Counter
from collections.abc import Callable

from benchmarks.stress.bars import Bar, at_most, growth_percent, none_of, percentile
from benchmarks.stress.health import HealthChecks
from benchmarks.stress.kinds import picture, shot
from benchmarks.stress.raw import JSON_LINE, KEY_LINE, Answer, post, post_json, send_mixed
from benchmarks.stress.target import Target, target

Kind = tuple[int, Callable[[random.Random], bytes]]

AT_ONCE = 8
HEALTH_SECONDS = 0.05
MAY_GROW_PERCENT = 5.0
LONGEST_LINE = 1000
CPU_SECONDS = 0.05
CHUNKED = "Transfer-Encoding: chunked\r\n"


def _request(target: str, lines: str, body: bytes = b"", method: str = "POST", version: str = "1.1") -> bytes:
    head = f"{method} {target} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n"
    return head.encode("latin-1") + body


def _chunks(chance: random.Random, count: int) -> bytes:
    return b"".join(b"1\r\n%c\r\n" % chance.randrange(32, 127) for _ in range(count)) + b"0\r\n\r\n"


def _coded(coding: str, body: bytes) -> bytes:
    return post("/analyze", body, f"{KEY_LINE}{JSON_LINE}Content-Encoding: {coding}\r\n")


def _good(chance: random.Random) -> bytes:
    return json.dumps(shot(picture(chance))).encode()


def _names(chance: random.Random) -> bytes:
    return json.dumps({f"{chance.random()}": 1 for _ in range(chance.randrange(1200, 5000))}).encode()


def _preflight(origin: str) -> bytes:
    lines = (
        f"Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n"
    )
    return _request("/analyze", lines, method="OPTIONS")


# 60 kB that unpack to as much as a body may have.
BOMB = gzip.compress(bytes(64 * 2**20), 9)
DEFLATE_BOMB = zlib.compress(bytes(64 * 2**20), 9)

# Name to the status and what makes one.
KINDS: dict[str, Kind] = {
    "many names": (422, lambda c: post("/analyze", _names(c))),
    "many unknown names in a shot": (422, lambda c: post_json("/analyze", shot() | {f"{c.random()}": 1 for _ in range(500)})),
    "many values": (422, lambda c: post("/analyze", b"[" + b"1," * c.randrange(6000, 60_000) + b"1]")),
    "many lists": (422, lambda c: post("/analyze", b"[" + b"[]," * c.randrange(6000, 60_000) + b"[]]")),
    "many texts": (422, lambda c: post("/analyze", b"[" + b'"",' * c.randrange(6000, 60_000) + b"1]")),
    "many levels": (422, lambda c: post("/analyze", b"[" * c.randrange(17, 60_000))),
    "many objects in objects": (422, lambda c: post("/analyze", b'{"a":' * c.randrange(17, 900))),
    "a long number": (422, lambda c: post("/analyze", b"1" * c.randrange(5000, 900_000))),
    "16 shots in a batch": (422, lambda c: post_json("/analyze_batch", {"shots": [shot(picture(c)) | {"shot_id": n} for n in range(16)]})),
    "a gzip bomb": (415, lambda _: _coded("gzip", BOMB)),
    "a gzip bomb in a gzip bomb": (415, lambda _: _coded("gzip, gzip", gzip.compress(BOMB))),
    "a deflate bomb": (415, lambda _: _coded("deflate", DEFLATE_BOMB)),
    "gzip": (415, lambda c: _coded("gzip", gzip.compress(_good(c)))),
    "a coding that nobody knows": (415, lambda c: _coded(c.choice(["x-gzip", "br", "zstd", "aes128gcm", "a"]), b"{}")),
    "no coding": (200, lambda c: _coded("identity", _good(c))),
    "a byte order mark": (200, lambda c: post("/analyze", b"\xef\xbb\xbf" + _good(c))),
    "a byte order mark alone": (422, lambda _: post("/analyze", b"\xef\xbb\xbf")),
    "blanks all around": (200, lambda c: post("/analyze", b" \r\n\t" * 900 + _good(c) + b"\n" * 900)),
    "PHP's slashes": (200, lambda c: post("/analyze", _good(c).replace(b"/", b"\\/"))),
    "an absolute address": (200, lambda c: post("http://localhost/analyze", _good(c))),
    "another server's absolute address": (401, lambda c: post(f"http://{c.randrange(10**9)}.example/analyze", b"{}")),
    "an absolute address without a host": (400, lambda _: post("http:///analyze", b"{}")),
    "a preflight of this machine's page": (200, lambda c: _preflight(f"http://localhost:{c.randrange(1, 65_536)}")),
    "a preflight of another page": (401, lambda c: _preflight(f"https://{c.randrange(10**9)}.example")),
    "one-byte chunks without a key": (401, lambda c: _request("/analyze", CHUNKED, _chunks(c, 3000))),
    "one-byte chunks of another type": (415, lambda c: _request("/analyze", KEY_LINE + CHUNKED, _chunks(c, 3000))),
    "one-byte chunks to no page": (404, lambda c: _request("/nowhere", KEY_LINE + CHUNKED, _chunks(c, 3000))),
    "one-byte chunks that are no JSON": (422, lambda c: _request("/analyze", KEY_LINE + JSON_LINE + CHUNKED, _chunks(c, 300))),
    "too many chunks": (400, lambda _: _request("/analyze", KEY_LINE + JSON_LINE + CHUNKED, b"1\r\n \r\n" * 10_100 + b"0\r\n\r\n")),
    "a method of 60,000 letters": (401, lambda c: _request("/analyze", "", method="X" * c.randrange(50_000, 60_000))),
    "two framings": (400, lambda _: _request("/analyze", KEY_LINE + JSON_LINE + CHUNKED + "Content-Length: 2\r\n", b"2\r\n{}\r\n0\r\n\r\n")),
    "chunks in HTTP/1.0": (400, lambda _: _request("/analyze", KEY_LINE + JSON_LINE + CHUNKED, b"0\r\n\r\n", version="1.0")),
    "two lengths": (400, lambda c: _request("/analyze", KEY_LINE + f"Content-Length: 2\r\nContent-Length: {c.randrange(3, 99)}\r\n", b"{}")),
    "the first page": (200, lambda _: _request("/", "", method="GET")),
}  # fmt: skip


def check(count: int) -> list[Bar]:
    """Send so many, after a tenth of them to warm up."""
    with target({"batch_tokens": 1000}) as server:
        _send(server, count // 10, seed=1)
        before, began = server.memory_mib, server.cpu_seconds
        with HealthChecks(server.port) as health:
            answers = _send(server, count, seed=2)
        after, used = server.memory_mib, server.cpu_seconds - began
        log = server.log.read_text(encoding="utf-8", errors="replace")
        alive = server.process.poll() is None and "Traceback" not in log
    name = f"{count} requests of {len(KINDS)} kinds"
    wrong = Counter(f"{kind}: {answer.status}" for kind, answer in answers if answer.status != KINDS[kind][0])
    return [
        none_of(name, "other answer than HTTP asks for", [f"{told} ({times} times)" for told, times in wrong.items()]),
        Bar(name, "the server lives, its log has no traceback", "it does" if alive else log[-300:], alive),
        at_most(f"{name}: the longest line of the log", max(map(len, log.splitlines())), LONGEST_LINE, "characters"),
        at_most(f"{name}: mean", used / count, CPU_SECONDS, "processor seconds a request"),
        at_most(name, growth_percent(before, after), MAY_GROW_PERCENT, f"% more memory than {before:.0f} MiB"),
        at_most(f"{name}: /health, 99th percentile", percentile(health.seconds, 99), HEALTH_SECONDS, "s"),
    ]


def _send(server: Target, count: int, seed: int) -> list[tuple[str, Answer]]:
    makers = {name: make for name, (_, make) in KINDS.items()}
    return asyncio.run(send_mixed(server.port, makers, count, seed=seed, at_once=AT_ONCE))
