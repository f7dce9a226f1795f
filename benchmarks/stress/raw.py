"""HTTP with as little as it takes: exact bytes, and thousands of connections from one thread."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.helpers import AUTH

PATIENCE_SECONDS = 120.0
KEY_LINE = f"Authorization: {AUTH['Authorization']}\r\n"
JSON_LINE = "Content-Type: application/json\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: 0 where the connection was closed without an answer.
        headers: names in lower case.
        body: as it came.
        seconds: from the first byte sent to the last one read.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


def post(path: str, body: bytes, lines: str = KEY_LINE + JSON_LINE) -> bytes:
    """A whole request."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode("latin-1") + body


def post_json(path: str, value: Any) -> bytes:
    """A whole request with a JSON body."""
    return post(path, json.dumps(value).encode())


async def exchange(port: int, request: bytes, *, end: bool = False) -> Answer:
    """Send exactly this on a connection of its own and read one answer.

    Args:
        port: of loopback.
        request: what is sent.
        end: also say that nothing more will come.
    """
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        if end and writer.can_write_eof():
            writer.write_eof()
        status, headers, body = await asyncio.wait_for(_read(reader), PATIENCE_SECONDS)
        return Answer(status, headers, body, time.perf_counter() - began)
    except (ConnectionError, asyncio.IncompleteReadError):
        return Answer(0, {}, b"", time.perf_counter() - began)
    finally:
        writer.close()


async def send_mixed(
    port: int,
    kinds: Mapping[str, Callable[[random.Random], bytes]],
    count: int,
    *,
    seed: int,
    at_once: int,
    ends: Callable[[str], bool] = lambda _: False,
) -> list[tuple[str, Answer]]:
    """Send requests of each kind in turn, some at the same time.

    Args:
        port: of loopback.
        kinds: name to what makes a request.
        count: requests in all.
        seed: for what the requests differ in.
        at_once: connections that are open at the same time.
        ends: whether a request of this kind also says that nothing more will come.

    Returns:
        Each request's kind and its answer, in the order in which the answers came.
    """
    chance = random.Random(seed)
    names = list(kinds)
    jobs = iter([(names[number % len(names)], random.Random(chance.random())) for number in range(count)])
    answers: list[tuple[str, Answer]] = []

    async def worker(jobs: Iterator[tuple[str, random.Random]]) -> None:
        for kind, own in jobs:
            answers.append((kind, await exchange(port, kinds[kind](own), end=ends(kind))))

    await asyncio.gather(*(worker(jobs) for _ in range(at_once)))
    return answers


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(status_line.split()[1]), headers, body
