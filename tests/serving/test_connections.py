"""Connections that never become a request."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import httpx
import pytest

from server import create_app
from serving import process
from serving.connections import READ_BYTES, PatientProtocol
from serving.draining import DrainingServer
from settings import Settings
from tests.fakes import FakeEngine
from tests.helpers import AUTH, PATIENCE_SECONDS, free_port, shot

# Long enough for a client that sends at once, on a busy machine too.
PATIENCE = 1.0
# Ours, with a connection that must be closed: less than the server's own patience.
LIMIT = 10.0
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> float:
    """The server's patience with headers is short."""
    monkeypatch.setattr("serving.connections.PATIENCE_SECONDS", PATIENCE)
    return PATIENCE


@pytest.fixture
def engine(settings: Settings) -> FakeEngine:
    return FakeEngine(list(settings.attributes))


@contextmanager
def serving(settings: Settings, engine: FakeEngine, drain_seconds: float) -> Iterator[tuple[DrainingServer, int]]:
    """A server in a thread, and its port."""
    server = DrainingServer(create_app(settings, engine), drain_seconds)
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield server, port
        server.should_exit = True
        thread.join()


@pytest.fixture
def port(settings: Settings, engine: FakeEngine) -> Iterator[int]:
    """A server on the fake engine."""
    with serving(settings, engine, drain_seconds=5) as (_, port):
        yield port


def wait_until_closed(connection: socket.socket) -> None:
    connection.settimeout(LIMIT)
    while connection.recv(65536):
        pass


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET /health HTTP/1.1\r\nHost: localhost\r\n"])
def test_headers_that_do_not_end(port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.connections.PATIENCE_SECONDS", PATIENCE / 2)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(sent)
        wait_until_closed(connection)
    assert time.monotonic() - began >= PATIENCE / 2


@pytest.mark.usefixtures("patience")
def test_headers_of_a_second_request_that_do_not_end(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /health HT")
        wait_until_closed(connection)


def test_a_good_request_may_take_longer_than_headers_may(port: int, engine: FakeEngine, patience: float) -> None:
    engine.delay = 1.2 * patience
    body = json.dumps(shot(1)).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    connection.request("POST", "/analyze", body, AUTH | JSON)
    first = connection.getresponse()
    assert (first.status, len(first.read()) > 0) == (200, True)
    time.sleep(1.2 * patience)
    connection.request("POST", "/analyze", body, AUTH | JSON)  # on the connection that is kept
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\r\n\r\n", b"GET /a b HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 70_000])
def test_what_is_no_request_gets_a_problem_and_is_counted(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(sent)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = json.loads(answer.read())
    assert (answer.status, answer.getheader("content-type")) == (400, "application/problem+json")
    assert body["request_id"] == answer.getheader("x-request-id")
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=AUTH, timeout=PATIENCE_SECONDS).text
    assert 'qwen_requests_total{route="other",status="400"} 1.0' in metrics


def test_what_comes_behind_an_answer_is_no_request(port: int, caplog: pytest.LogCaptureFixture) -> None:
    """The client has its answer, so another one would be told to nobody."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /analyze HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401")
        connection.sendall(b"no length\r\n")
        wait_until_closed(connection)
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=AUTH, timeout=PATIENCE_SECONDS).text
    assert 'qwen_requests_total{route="other",status="401"} 1.0' in metrics
    assert 'status="400"' not in metrics
    assert "Traceback" not in caplog.text


def test_who_still_sends_when_a_stop_runs_out_of_time_is_told_so(settings: Settings, engine: FakeEngine) -> None:
    head = AUTH | JSON | {"Host": "localhost", "Content-Length": "9"}
    begun = "".join(f"{line}\r\n" for line in ("POST /analyze HTTP/1.1", *map(": ".join, head.items()), ""))
    with (
        serving(settings, engine, drain_seconds=0.3) as (server, port),
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        connection.sendall(begun.encode() + b'{"sh')
        while not server._state.in_hand:
            time.sleep(0.01)
        server.handle_exit(signal.SIGTERM, None)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        told = json.loads(answer.read())
    assert (answer.status, told["type"]) == (503, "urn:qwen-shots:error:draining")
    assert int(answer.headers["Retry-After"]) > 0


def test_connections_take_turns_in_small_parts(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read of one connection at a time is what the others wait for."""
    parts: list[int] = []
    receive = PatientProtocol.data_received

    def counted(self: PatientProtocol, data: bytes) -> None:
        parts.append(len(data))
        receive(self, data)

    monkeypatch.setattr(PatientProtocol, "data_received", counted)
    body = json.dumps(shot(images=["A" * 2_000_000])).encode()
    answer = httpx.post(f"http://127.0.0.1:{port}/analyze", content=body, headers=AUTH | JSON, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 422
    assert sum(parts) >= len(body)
    assert max(parts) <= READ_BYTES


def test_no_answer_waits_for_an_acknowledgement(settings: Settings) -> None:
    """Answers have two parts; with Nagle's algorithm the second one waits some 40 ms on a connection that is kept."""
    elsewhere = settings.model_copy(
        update={"server": settings.server.model_copy(update={"host": "127.0.0.1", "port": free_port()})}
    )

    async def no_delay() -> int:
        accepted: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

        class Accepting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted.set_result(cast("asyncio.Transport", transport))

        with process._bind(elsewhere) as listening:
            server = await asyncio.get_running_loop().create_server(Accepting, sock=listening)
            with socket.create_connection(listening.getsockname()):
                transport = await accepted
                option: int = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                transport.close()
            server.close()
            await server.wait_closed()
        return option

    assert asyncio.run(no_delay())
