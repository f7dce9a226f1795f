"""A server goes on accepting: through a flood of closed connections, and when it is out of file descriptors."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from benchmarks.stress.target import Target, target
from serving.accepting import BATCH, accept_connections
from tests.scripts.processes import wait_for

SOFT = 256
CONNECTIONS = 48
REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def no_more_than(files: int, process: psutil.Process) -> Iterator[None]:
    """Lower how many files a process, and those that it starts, may open, unless they ask for more."""
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (files, hard))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))


def seconds_of(process: psutil.Process) -> float:
    """Processor time."""
    times = process.cpu_times()
    return float(times.user + times.system)


def connect(server: Target, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))


@pytest.mark.parametrize("processes", [1, 2])
def test_no_descriptors_left_for_connections(processes: int) -> None:
    with (
        no_more_than(SOFT, psutil.Process()),
        target({}, SERVER__HTTP_PROCESSES=str(processes)) as server,
        ExitStack() as stack,
    ):
        process = psutil.Process(server.process.pid)
        assert process.rlimit(psutil.RLIMIT_NOFILE)[0] > SOFT
        with no_more_than(1, process):
            began = seconds_of(process)
            waiting = [connect(server, stack) for _ in range(CONNECTIONS)]
            wait_for(lambda: "no connection can be accepted" in server.log.read_text())
            time.sleep(2)  # asyncio would try again meanwhile, 2 times and then 4
            assert seconds_of(process) - began < 1
        for each in waiting:
            each.sendall(REQUEST)
            assert each.recv(100).startswith(b"HTTP/1.1 200")
        log = server.log.read_text()
    assert log.count("no connection can be accepted: Too many open files") == 1
    assert "Traceback" not in log


def test_no_descriptors_left_in_a_process_that_reads_requests() -> None:
    with target({}, SERVER__HTTP_PROCESSES="2") as server, ExitStack() as stack:
        wait_for(lambda: server.log.read_text().count("Application startup complete") == 2)
        fronts = [child for child in psutil.Process(server.process.pid).children() if "front" in child.name()]
        with ExitStack() as limits:
            for front in fronts:
                limits.enter_context(no_more_than(1, front))
            for each in [connect(server, stack) for _ in range(CONNECTIONS)]:
                assert each.recv(100) == b""  # closed at once: its client may try again
        last = connect(server, stack)
        last.sendall(REQUEST)
        assert last.recv(100).startswith(b"HTTP/1.1 200")
        log = server.log.read_text()
    assert "connections are lost: no file descriptor is left" in log
    assert "Traceback" not in log


def accepted_in_turns(listening: socket.socket, until: int) -> list[list[tuple[str, int]]]:
    """The addresses of the clients whose connections are taken in each turn of the loop, up to one client's."""
    turns: list[list[tuple[str, int]]] = [[]]

    def take(connection: socket.socket) -> None:
        with connection:
            turns[-1].append(connection.getpeername())

    async def run() -> None:
        accepting = asyncio.create_task(accept_connections(listening, take))
        while not any(port == until for _, port in turns[-1]):
            turns.append([])
            await asyncio.sleep(0)
        accepting.cancel()

    asyncio.run(asyncio.wait_for(run(), 10))
    return turns


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_long_queue_is_accepted_in_batches_and_without_closed_connections(is_closed: bool) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=10 * BATCH) as listening, ExitStack() as stack:
        for _ in range(6 * BATCH):
            client = stack.enter_context(socket.create_connection(listening.getsockname()))
            client.sendall(REQUEST)
            if is_closed:
                client.close()
        last = stack.enter_context(socket.create_connection(listening.getsockname()))
        turns = accepted_in_turns(listening, last.getsockname()[1])
    assert max(map(len, turns)) <= BATCH
    assert sum(map(len, turns)) == (BATCH if is_closed else 6 * BATCH) + 1
