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
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest

from server import create_app
from serving import process
from serving.connections import READ_BYTES, PatientProtocol
from serving.draining import DrainingServer
from serving.strict_http import EVENTS_A_TURN, MAX_CHUNKS, StrictConnection
from settings import Settings
from tests.fakes import FakeEngine
from tests.helpers import AUTH, PATIENCE_SECONDS, free_port, shot
from tests.scripts.processes import wait_for

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
        try:
            yield server, port
        finally:
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


def test_an_answer_to_what_is_no_request_says_which_model_runs(settings: Settings, engine: FakeEngine) -> None:
    with serving(settings, engine, drain_seconds=5) as (_, port):
        for weights in (None, "a hash"):
            engine.info = replace(engine.info, weights=weights)
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
                answer = sent(connection, b"GET /a b HTTP/1.1\r\n\r\n")
            expected = httpx.get(f"http://127.0.0.1:{port}/health", timeout=PATIENCE_SECONDS).headers.get("x-model")
            assert (answer.status, answer.headers["x-model"]) == (400, expected)
    assert expected is not None


def test_a_body_that_comes_too_slowly_closes_the_connection_once(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("security.BODY_PAUSE_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        answer = sent(connection, post("/analyze", KEY_LINES + "Content-Length: 9\r\n", b"{"))
        assert (answer.status, answer.headers.get_all("connection")) == (408, ["close"])


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


def sent(connection: socket.socket, data: bytes) -> http.client.HTTPResponse:
    """Send exactly this, and read one answer."""
    connection.sendall(data)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer


def asked(port: int, data: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of the answer to exactly this."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        answer = sent(connection, data)
        return answer.status, json.loads(answer.read())


KEY_LINES = "".join(f"{name}: {value}\r\n" for name, value in (AUTH | JSON).items())
CHUNKED = "Transfer-Encoding: chunked\r\n"


def post(path: str, lines: str, body: bytes = b"", version: str = "1.1") -> bytes:
    return f"POST {path} HTTP/{version}\r\nHost: localhost\r\n{lines}\r\n".encode() + body


UNREAD = {
    "no key": (post("/analyze", CHUNKED), 401),
    "another type": (post("/analyze", KEY_LINES.replace("json", "xml") + CHUNKED), 415),
    "compressed": (post("/analyze", KEY_LINES + "Content-Encoding: gzip\r\n" + CHUNKED), 415),
    "closed by the client": (
        post("/analyze", KEY_LINES.replace("json", "xml") + CHUNKED + "Connection: close\r\n"),
        415,
    ),
    "broken": (post("/analyze", KEY_LINES + CHUNKED, b"no length\r\n"), 400),
    "no such page": (post("/nowhere", KEY_LINES + CHUNKED), 404),
    "another method": (post("/analyze", KEY_LINES + CHUNKED).replace(b"POST", b"PUT"), 405),
    "too large": (post("/analyze", KEY_LINES + "Content-Length: 99999999999\r\n"), 413),
    "a page without a body": (post("/health", CHUNKED).replace(b"POST", b"GET"), 200),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_an_answer_before_the_end_of_a_body_is_the_last_one(port: int, kind: str) -> None:
    request, status = UNREAD[kind]
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        answer = sent(connection, request)
        answer.read()
        assert (answer.status, answer.headers.get_all("connection")) == (status, ["close"])
        connection.sendall(b"1\r\nx\r\n" * 1000)  # no reset while the client still sends
        assert connection.recv(1) == b""


@pytest.mark.parametrize("lines", ["", "Content-Length: 2\r\n"])
def test_a_refusal_of_a_whole_request_keeps_the_connection(port: int, lines: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        for _ in range(2):
            answer = sent(connection, post("/analyze", lines, b"{}" if lines else b""))
            answer.read()
            assert (answer.status, answer.headers["connection"]) == (401, None)


def test_what_a_client_goes_on_to_send_is_not_read_for_ever(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.lingering.LINGER_SECONDS", 0.2)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection,
        pytest.raises(ConnectionError),
    ):
        sent(connection, UNREAD["no key"][0]).read()
        while True:
            connection.sendall(b"1\r\nx\r\n" * 10_000)


@pytest.mark.parametrize("lines", [CHUNKED, KEY_LINES + CHUNKED], ids=["without a key", "with a key"])
def test_chunks_of_one_byte_are_read_in_turns(port: int, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come at once: others wait for some of them, not for all."""
    turns: list[int] = []
    next_event = StrictConnection.next_event
    begin_turn = StrictConnection.begin_turn

    def begun(self: StrictConnection) -> None:
        turns.append(0)
        begin_turn(self)

    def counted(self: StrictConnection) -> Any:
        turns[-1] += 1
        return next_event(self)

    monkeypatch.setattr(StrictConnection, "begin_turn", begun)
    monkeypatch.setattr(StrictConnection, "next_event", counted)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        answer = sent(connection, post("/analyze", lines, b"1\r\n{\r\n" * 2000 + b"0\r\n\r\n"))
        assert answer.status in {401, 422}
    assert max(turns) <= EVENTS_A_TURN + 1
    assert sum(turns) < 3000  # without a key, not even those that were there already


def test_a_body_in_tiny_chunks_is_read_whole(port: int) -> None:
    body = json.dumps(shot(1, images=shot(1)["images"][:1])).encode()
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    chunks = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    status, answer = asked(port, post("/analyze", KEY_LINES + CHUNKED, chunks + b"0\r\n\r\n"))
    assert (status, answer["shot_id"]) == (200, 1)


def test_a_body_of_too_many_chunks_is_refused(port: int) -> None:
    status, problem = asked(port, post("/analyze", KEY_LINES + CHUNKED, b"1\r\n \r\n" * (MAX_CHUNKS + 100)))
    assert (status, problem["type"]) == (400, "urn:qwen-shots:error:not-http")
    assert "10,000 chunks" in problem["detail"]


SMUGGLED = {
    "both lengths": CHUNKED + "Content-Length: 2\r\n",
    "both, in the other order": "Content-Length: 2\r\n" + CHUNKED,
    "two lengths": "Content-Length: 2\r\nContent-Length: 3\r\n",
    "two in one": "Content-Length: 2, 3\r\n",
    "a signed length": "Content-Length: +2\r\n",
    "another coding": "Transfer-Encoding: gzip, chunked\r\n",
    "chunked twice": CHUNKED * 2,
    "a blank before the colon": "Transfer-Encoding : chunked\r\n",
    "no host": None,
}


@pytest.mark.parametrize("kind", SMUGGLED)
def test_what_two_servers_could_read_in_two_ways_is_refused_and_ends_the_connection(port: int, kind: str) -> None:
    lines = SMUGGLED[kind]
    request = post("/analyze", KEY_LINES + (lines or ""), b"2\r\n{}\r\n0\r\n\r\n")
    if lines is None:
        request = request.replace(b"Host: localhost\r\n", b"")
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        answer = sent(connection, request)
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert json.loads(answer.read())["type"] == "urn:qwen-shots:error:not-http"
        assert connection.recv(1) == b""


@pytest.mark.parametrize("version", ["0.9", "2.0", "9.7"])
def test_another_version_of_http_is_refused(port: int, version: str) -> None:
    status, problem = asked(port, f"GET / HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())
    assert (status, "HTTP/1.1" in problem["detail"]) == (400, True)


def test_chunks_in_http_1_0_are_refused(port: int) -> None:
    status, problem = asked(port, post("/analyze", KEY_LINES + CHUNKED, b"0\r\n\r\n", version="1.0"))
    assert status == 400
    assert "Content-Length" in problem["detail"]


def test_a_folded_header_is_one_header(port: int) -> None:
    """RFC 9112, section 5.2: refused, or read with blanks for the fold; a proxy in front must see the same request."""
    folded = KEY_LINES.replace("Bearer ", "Bearer\r\n  ")
    body = json.dumps(shot(1)).encode()
    assert asked(port, post("/analyze", f"{folded}Content-Length: {len(body)}\r\n", body))[0] == 200


@pytest.mark.parametrize("address", ["http://localhost", "HTTP://127.0.0.1:8000", "https://localhost:1"])
@pytest.mark.parametrize("path", ["/analyze", "/analyze?explain=true"])
def test_an_absolute_address_is_read_as_its_path(port: int, address: str, path: str) -> None:
    body = json.dumps(shot(1)).encode()
    status, answer = asked(port, post(address + path, f"{KEY_LINES}Content-Length: {len(body)}\r\n", body))
    assert (status, "evidence" in answer) == (200, "explain" in path)


@pytest.mark.parametrize(("address", "host", "status"), [
    ("http://localhost/metrics", "there", 200),
    ("http://there.example/metrics", "localhost", 401),
    ("http://there.example/metrics", "there.example", 401),
    ("http://localhost?x=1", "localhost", 200),
    ("http://localhost", "localhost", 200),
])  # fmt: skip
def test_the_host_of_an_absolute_address_counts(port: int, address: str, host: str, status: int) -> None:
    request = f"GET {address} HTTP/1.1\r\nHost: {host}\r\n{KEY_LINES}\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        assert sent(connection, request).status == status


@pytest.mark.parametrize("address", ["http:///analyze", "http://me@localhost/metrics", "http://[::1/metrics"])
def test_an_address_without_a_host(port: int, address: str) -> None:
    status, problem = asked(port, f"GET {address} HTTP/1.1\r\nHost: localhost\r\n{KEY_LINES}\r\n".encode())
    assert (status, "http://HOST:PORT/PATH" in problem["detail"]) == (400, True)


def test_a_method_of_any_length_is_one_word_in_the_log(port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="qwen_server")
    assert asked(port, post("/analyze", "").replace(b"POST", b"X" * 60_000))[0] == 401

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "qwen_server"]

    wait_for(lambda: any(line.startswith("other ") for line in told()))  # it is written behind the answer
    assert max(map(len, told())) < 200


def test_a_connection_is_kept_for_as_long_as_is_set(settings: Settings, engine: FakeEngine) -> None:
    assert settings.server.keep_alive > 60  # of nginx and others
    brief = settings.model_copy(update={"server": settings.server.model_copy(update={"keep_alive": 1})})
    with serving(brief, engine, 5) as (_, port), socket.create_connection(("127.0.0.1", port)) as connection:
        sent(connection, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").read()
        began = time.monotonic()
        wait_until_closed(connection)
    assert 0.5 < time.monotonic() - began < LIMIT
