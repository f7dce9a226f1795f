"""200 MB without a key: refused at once, and nothing of it is kept."""

from __future__ import annotations

import http.client
import socket
import threading
import time

from benchmarks.stress.bars import Bar, at_most, none_of
from benchmarks.stress.raw import JSON_LINE
from benchmarks.stress.target import Target, target

BYTES = 200_000_000
PIECE = bytes(65_536)
WITHIN_SECONDS = 0.1
MEMORY_MIB = 5.0
ROUNDS = 5


def check() -> list[Bar]:
    """With its length told, and in chunks."""
    with target({}) as server:
        _flood(server, chunked=False)  # warms up
        return [*_check(server, chunked=False), *_check(server, chunked=True)]


def _check(server: Target, *, chunked: bool) -> list[Bar]:
    name = f"200 MB without a key{', in chunks' * chunked}"
    before = server.memory_mib
    server.forget_peak()
    answers = [_flood(server, chunked=chunked) for _ in range(ROUNDS)]
    return [
        none_of(name, "answer but 401", [status for status, _ in answers if status != 401]),
        at_most(f"{name}: 401 after", sorted(seconds for _, seconds in answers)[ROUNDS // 2], WITHIN_SECONDS, "s"),
        at_most(name, server.peak_mib - before, MEMORY_MIB, "MiB more memory"),
    ]


def _flood(server: Target, *, chunked: bool) -> tuple[int, float]:
    """Send on and on while the answer is read; its status and the seconds until it came."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {BYTES}"
    piece = b"10000\r\n" + PIECE + b"\r\n" if chunked else PIECE
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        began = time.perf_counter()
        connection.sendall(f"POST /analyze HTTP/1.1\r\nHost: localhost\r\n{JSON_LINE}{length}\r\n\r\n".encode())
        sender = threading.Thread(target=_send_on, args=(connection, piece))
        sender.start()
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        took = time.perf_counter() - began
        sender.join()
    return answer.status, took


def _send_on(connection: socket.socket, piece: bytes) -> None:
    try:
        for _ in range(BYTES // len(PIECE)):
            connection.sendall(piece)
    except OSError:
        return  # the server closed the connection
