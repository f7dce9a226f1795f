"""Connections that send nothing but chunks of one byte, with a key and without: /health answers all the same."""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
from contextlib import suppress

from benchmarks.stress.bars import Bar, at_most, none_of, percentile
from benchmarks.stress.health import HealthChecks
from benchmarks.stress.raw import JSON_LINE, KEY_LINE
from benchmarks.stress.target import target

HEALTH_SECONDS = 0.05
HEALTH_PAUSE = 0.02
PIECE = b"1\r\n \r\n" * 10_000


def check(connections: tuple[int, ...], seconds: float) -> list[Bar]:
    """So many connections at a time, for so long each."""
    with target({}) as server:
        return [
            bar
            for count in connections
            for lines, told in (("", "without a key"), (KEY_LINE + JSON_LINE, "with a key"))
            for bar in _check(server.port, count, lines, told, seconds)
        ]


def _check(port: int, connections: int, lines: str, told: str, seconds: float) -> list[Bar]:
    # In a process of its own: its threads would hold up the one that asks /health.
    sender = multiprocessing.get_context("spawn").Process(target=_send, args=(port, connections, lines), daemon=True)
    sender.start()
    time.sleep(1)
    with HealthChecks(port, pause=HEALTH_PAUSE) as health:
        time.sleep(seconds)
    sender.kill()
    sender.join()
    name = f"{connections} connections of one-byte chunks {told}: {len(health.seconds)} health checks"
    return [
        at_most(f"{name}, 99th percentile", percentile(health.seconds, 99), HEALTH_SECONDS, "s"),
        none_of(name, "failure", health.failures),
    ]


def _send(port: int, connections: int, lines: str) -> None:
    threads = [threading.Thread(target=_send_on, args=(port, lines)) for _ in range(connections)]
    for thread in threads:
        thread.start()


def _send_on(port: int, lines: str) -> None:
    head = f"POST /analyze HTTP/1.1\r\nHost: localhost\r\n{lines}Transfer-Encoding: chunked\r\n\r\n".encode()
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(head + PIECE)
            while True:
                connection.sendall(PIECE)
