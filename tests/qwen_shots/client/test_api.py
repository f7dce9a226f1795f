"""The client against the real server, and against a small server that answers as it is told to."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import uvicorn

from qwen_shots import schemas
from qwen_shots.client.api import MAX_PAUSE_SECONDS, ShotClient
from qwen_shots.client.errors import (
    BadAnswer,
    BadGateway,
    Busy,
    ModelChanged,
    Problem,
    Refused,
    ServerFailed,
    Unauthorized,
    Unreachable,
)
from qwen_shots.client.exchange import Exchanges
from qwen_shots.client.shots import find_shots
from qwen_shots.client.wire import wire_shots
from qwen_shots.errors import InvalidInput
from qwen_shots.schemas import Analysis, BatchError
from server import create_app
from settings import load_settings
from tests.fakes import FakeEngine
from tests.helpers import KEY, ROOT, free_port, server_environment, shot
from tests.qwen_shots.client.clips import scenes, tone, write_film


def make(shot_id: int | str, **changes: Any) -> schemas.Shot:
    return schemas.Shot.model_validate(shot(shot_id, **changes))


# --- the real server -------------------------------------------------------------------------------------------------


@pytest.fixture
def client(live_url: str) -> Iterator[ShotClient]:
    with ShotClient(live_url, KEY) as made:
        yield made


def test_health(client: ShotClient) -> None:
    assert client.health().status == "healthy"


def test_a_film_from_file_to_analyses(client: ShotClient, tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", scenes(30, 24, 1), sound=tone(440, 1.5))
    shots = find_shots(path)
    sent = list(wire_shots(path, shots))
    assert [each.shot_id for each in sent] == list(range(1, len(shots) + 1))
    assert [(each.start_time, each.end_time) for each in sent] == [(each.start, each.end) for each in shots]
    assert all(each.audio_features for each in sent[:1])
    answers = list(client.analyze(sent))
    assert all(isinstance(answer, Analysis) and len(answer.attributes) == 6 for answer in answers)
    assert [answer.shot_id for answer in answers] == [each.shot_id for each in sent]


def test_one_bad_shot_is_told_and_the_others_come(client: ShotClient) -> None:
    good, bad, also_good = client.analyze([make("a"), make(1, images=["AAAA"]), make("1")])
    assert isinstance(good, Analysis)
    assert isinstance(bad, BatchError)
    assert (bad.shot_id, bad.type) == (1, "urn:qwen-shots:error:invalid-picture")
    assert isinstance(also_good, Analysis)
    assert also_good.shot_id == "1"


def test_evidence(client: ShotClient) -> None:
    (answer,) = client.analyze([make(1)], explain=True)
    assert isinstance(answer, Analysis)
    assert answer.evidence is not None


def test_a_wrong_key(live_url: str) -> None:
    with ShotClient(live_url, "not-the-key") as client, pytest.raises(Unauthorized, match="key") as caught:
        client.analyze_batch([make(1)])
    assert caught.value.body.status == 401
    assert caught.value.body.request_id


def test_twins_are_refused(client: ShotClient) -> None:
    with pytest.raises(InvalidInput, match="shot_id"):
        client.analyze_batch([make(1), make(1)])


@contextmanager
def served(**changes: str) -> Iterator[str]:
    """The address of the real application with other settings, over HTTP; its engine answers at once."""
    port = free_port()
    settings = load_settings(environ=server_environment(port, **changes))
    app = create_app(settings, FakeEngine(list(settings.attributes)))
    running = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.should_exit = True
        thread.join()


def test_a_server_that_takes_fewer_shots_and_smaller_bodies() -> None:
    large = ["A" * 400_000]
    with served(PROCESSING__MAX_BATCH_SIZE="3", SERVER__MAX_BODY_MIB="1") as url, ShotClient(url, KEY) as client:
        answers = list(client.analyze(make(number) for number in range(8)))
        assert [answer.shot_id for answer in answers] == list(range(8))
        assert all(isinstance(answer, Analysis) for answer in answers)
        assert client.batch_size <= 3
        halves = client.analyze_batch([make(number, images=large) for number in range(3)])
        assert [answer.shot_id for answer in halves] == [0, 1, 2]
        with pytest.raises(Refused) as caught:
            client.analyze_batch([make(1, images=large * 3)])
        assert caught.value.body.status == 413


def test_no_server_at_all() -> None:
    """Nothing that never answered is waited for: the address is wrong, or nobody has started a server."""
    waits: list[float] = []
    began = time.monotonic()
    with ShotClient(f"http://127.0.0.1:{free_port()}", KEY, sleep=waits.append) as client:
        for ask in (client.health, lambda: client.analyze_batch([make(1)])):
            with pytest.raises(Unreachable, match="Connection refused"):
                ask()
    assert waits == []
    assert time.monotonic() - began < 5


def test_a_server_that_has_gone_away_is_waited_for() -> None:
    told = Told(rows())
    with told as client:
        assert captions(client, 1) == ["shot 0"]
        told.server.shutdown()
        told.server.server_close()
        client._exchanges.close()
        client._exchanges = Exchanges(httpx.URL(client.address), KEY)
        with pytest.raises(Unreachable):
            captions(client, 1)
    assert_backoff(told.waits, [1, 2, 4])


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://127.0.0.1", "http://", "localhost:8000", "http://[::1", "http://a:b"]
)
def test_no_address(url: str) -> None:
    """Told at once, not after a minute of asking again."""
    with pytest.raises(InvalidInput, match="address"):
        ShotClient(url, KEY)


def test_a_host_that_can_be_none() -> None:
    with ShotClient(f"http://{'a' * 300}", KEY) as client, pytest.raises(Unreachable):
        client.health()


@pytest.mark.parametrize("key", ["schlüssel", "the-key\n", "the key"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(InvalidInput, match="key"):
        ShotClient("http://127.0.0.1", key)


def test_no_key(live_url: str) -> None:
    with ShotClient(live_url, "") as client, pytest.raises(Unauthorized, match="Bearer KEY"):
        client.analyze_batch([make(1)])


def assert_backoff(waits: list[float], longest: list[float]) -> None:
    """Waits that grow, none longer than these and none shorter than their half: clients must not come all at once."""
    assert len(waits) == len(longest)
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True)), waits


# --- a server that does as it is told --------------------------------------------------------------------------------

Reply = tuple[int, dict[str, str], bytes]
Script = Callable[[list[Any]], Reply]


class Told:
    """A real HTTP server whose answers are functions of the shots it gets; the last one stays."""

    def __init__(self, *script: Script) -> None:
        self.requests: list[list[Any]] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                shots = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["shots"]
                told.requests.append([each["shot_id"] for each in shots])
                status, headers, body = script[min(len(told.requests), len(script)) - 1](shots)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.waits: list[float] = []

    def __enter__(self) -> ShotClient:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.client = ShotClient(f"http://127.0.0.1:{self.server.server_port}", KEY, retries=3, sleep=self.waits.append)
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.server.shutdown()
        self.server.server_close()


def rows(
    *, fail: str | None = None, failing: int = -1, turned: bool = False, model: str | None = None, packed: str = ""
) -> Script:
    def script(shots: list[Any]) -> Reply:
        results, errors = [], []
        for index, each in enumerate(shots):
            name = each["shot_id"]
            if name == failing:
                kind = f"urn:qwen-shots:error:{fail}"
                errors.append({"index": index, "shot_id": name, "type": kind, "title": "T", "detail": "D"})
            else:
                results.append({"shot_id": name, "caption": f"shot {name}", "attributes": {"motion": 0.5}})
        if turned:
            results.reverse()
        headers = {"X-Model": model} if model else {}
        body = json.dumps({"results": results, "errors": errors}).encode()
        return (200, {**headers, "Content-Encoding": packed}, gzip.compress(body)) if packed else (200, headers, body)

    return script


def problem(status: int, **headers: str) -> Script:
    body = {"type": "urn:qwen-shots:error:x", "title": "T", "status": status, "detail": "the detail", "request_id": "7"}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: (status, names, json.dumps(body).encode())


def plain(status: int, body: bytes = b"<html>", **headers: str) -> Script:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: (status, names, body)


def captions(client: ShotClient, count: int) -> list[str]:
    answers = client.analyze_batch([make(number) for number in range(count)])
    return [answer.caption if isinstance(answer, Analysis) else answer.type for answer in answers]


def test_answers_are_matched_by_name_not_by_place() -> None:
    with Told(rows(turned=True)) as client:
        assert captions(client, 4) == ["shot 0", "shot 1", "shot 2", "shot 3"]


def test_retry_after_is_honoured() -> None:
    before = datetime.now(timezone.utc)
    soon = before + timedelta(seconds=50)
    date = format_datetime(soon, usegmt=True)
    told = Told(problem(503, Retry_After="7"), problem(429, Retry_After=date), problem(503), rows())
    with told as client:
        assert captions(client, 1) == ["shot 0"]
    until_soon = [(soon - moment).total_seconds() for moment in (datetime.now(timezone.utc), before)]
    assert until_soon[0] - 1 <= told.waits[1] <= 1.1 * until_soon[1]  # a date has whole seconds
    assert 7 <= told.waits[0] <= 7.7  # none comes sooner, and not all at once
    assert_backoff(told.waits[2:], [4])


@pytest.mark.parametrize("text", ["soon", "1.5", "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"])
def test_a_retry_after_that_says_nothing(text: str) -> None:
    told = Told(problem(503, Retry_After=text), rows())
    with told as client:
        assert captions(client, 1) == ["shot 0"]
    assert_backoff(told.waits, [1])


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504, *range(520, 531)])
def test_what_may_pass_is_asked_again(status: int) -> None:
    """This server's 408 too, and what Cloudflare says where it gets no answer of the server behind it."""
    told = Told(plain(status), plain(status, Retry_After="7"), rows())
    with told as client:
        assert captions(client, 2) == ["shot 0", "shot 1"]
    assert told.requests == [[0, 1]] * 3
    assert_backoff(told.waits[:1], [1])
    assert 7 <= told.waits[1] <= 7.7


def test_clients_do_not_come_again_all_at_once() -> None:
    waits = set()
    for _ in range(5):
        told = Told(problem(503), problem(503, Retry_After="3"), rows())
        with told as client:
            captions(client, 1)
        waits |= set(told.waits)
    assert len(waits) == 10


@pytest.mark.parametrize(
    ("status", "words"),
    [(502, "no answer of the server behind"), (504, "too slow"), (522, "no answer of the server behind")],
)
def test_a_proxy_with_no_server_behind_it_for_too_long(status: int, words: str) -> None:
    told = Told(plain(status))
    with told as client, pytest.raises(BadGateway, match=f"{status} .*{words}") as caught:
        captions(client, 1)
    assert_backoff(told.waits, [1, 2, 4])
    assert isinstance(caught.value, Busy)  # whoever tries again later need not know of proxies


def test_patience_ends() -> None:
    told = Told(problem(503, Retry_After="2"))
    with told as client, pytest.raises(Busy, match="the detail") as caught:
        captions(client, 1)
    assert len(told.waits) == 3
    assert all(2 <= wait <= 2.2 for wait in told.waits)
    assert (caught.value.retry_after, caught.value.body.request_id) == (2, "7")


def test_a_server_that_wants_too_much_patience() -> None:
    told = Told(problem(503, Retry_After=str(int(MAX_PAUSE_SECONDS) + 1)))
    with told as client, pytest.raises(Busy):
        captions(client, 1)
    assert told.waits == []


def test_a_shot_that_failed_of_something_that_passes_is_sent_again_alone() -> None:
    told = Told(rows(fail="engine-lost", failing=1), rows(fail="queue-full", failing=1), rows())
    with told as client:
        assert captions(client, 3) == ["shot 0", "shot 1", "shot 2"]
    assert told.requests == [[0, 1, 2], [1], [1]]
    assert_backoff(told.waits, [1, 2])


def test_a_shot_that_stays_lost_is_told_in_the_end() -> None:
    told = Told(rows(fail="engine-lost", failing=1))
    with told as client:
        assert captions(client, 2) == ["shot 0", "urn:qwen-shots:error:engine-lost"]
    assert len(told.requests) == 4


def test_a_shot_that_failed_for_good_is_not_sent_again() -> None:
    told = Told(rows(fail="invalid-picture", failing=0))
    with told as client:
        assert captions(client, 2) == ["urn:qwen-shots:error:invalid-picture", "shot 1"]
    assert len(told.requests) == 1


def test_what_was_answered_comes_before_what_fails() -> None:
    """A shot of a batch is lost, and then the server is away: the others' answers are not lost with it."""
    told = Told(rows(fail="engine-lost", failing=1), problem(503))
    with told as client:
        coming = client.answers_to([make(number) for number in range(3)])
        assert [shot.shot_id for shot, _ in next(coming)] == [0, 2]
        with pytest.raises(Busy):
            next(coming)


def test_a_shot_that_is_too_large_costs_no_other() -> None:
    refused = problem(413)
    told = Told(lambda shots: (refused if any(each["shot_id"] == 2 for each in shots) else rows())(shots))
    with told as client:
        assert captions(client, 5) == ["shot 0", "shot 1", "urn:qwen-shots:error:x", "shot 3", "shot 4"]


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        (problem(500), ServerFailed, "the detail"),
        (problem(415), Refused, "the detail"),
        (plain(501), ServerFailed, "501"),
        (plain(404), Refused, "404"),
        (plain(302, Location="http://127.0.0.1:9/"), BadAnswer, "302"),
        (lambda _: (200, {"Content-Encoding": "gzip"}, b"<html>"), BadAnswer, "can't be decoded"),
        (plain(200), BadAnswer, "not one of this server's"),
        (plain(200, b'{"results": [], "errors": []}'), BadAnswer, "nothing about shot 0"),
    ],
)
def test_what_is_wrong_has_a_type(script: Script, error: type[Problem | BadAnswer], words: str) -> None:
    told = Told(script)
    with told as client, pytest.raises(error, match=words):
        captions(client, 1)
    assert len(told.requests) == 1


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str
) -> None:
    monkeypatch.setenv(variable, proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Told(rows()) as client:
        assert captions(client, 1) == ["shot 0"]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "gopher://127.0.0.1:9"])
def test_a_proxy_that_can_not_be_used_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(InvalidInput, match="the proxy that the environment names"):
        ShotClient("http://shots.example.com:8000", KEY)


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    modules = "api, film, frames, shots, sound, soundtrack, wire"
    heavy = ["torch", "transformers", "librosa", "av", "scenedetect", "cv2", "numba"]
    code = f"import sys; from qwen_shots.client import {modules}; sys.exit(' '.join({heavy} & sys.modules.keys()))"
    code = code.replace(str(heavy), f"set({heavy})")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


# --- which model answers ---------------------------------------------------------------------------------------------


def test_the_model_that_answers(live_url: str) -> None:
    with ShotClient(live_url, KEY) as client:
        assert client.model is None
        client.health()
        known = client.model
        assert known == httpx.get(f"{live_url}/health").headers["x-model"]
        client.analyze_batch([make(1)])
        assert client.model == known


@pytest.mark.parametrize("later", ["a/model@2222", None])
def test_a_model_that_changes_is_noticed(later: str | None) -> None:
    told = Told(rows(model="a/model@1111"), problem(503, Retry_After="0"), rows(model="moved@1111"), rows(model=later))
    with told as client:
        captions(client, 1)
        captions(client, 1)  # asked again; a problem need not name it, and a name is no model
        assert client.model == "a/model@1111"
        with pytest.raises(ModelChanged, match="from a/model@1111 to"):
            captions(client, 1)


def test_a_server_that_does_not_name_its_model() -> None:
    with Told(rows()) as client:
        captions(client, 1)
        captions(client, 1)
        assert client.model is None


# --- answers without end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
def test_a_packed_answer(coding: str) -> None:
    with Told(rows(packed=coding)) as client:
        assert captions(client, 2) == ["shot 0", "shot 1"]


def bomb(*codings: str) -> Script:
    """300 MB in 1.3 MB, or in 0.006."""

    def script(_: list[Any]) -> Reply:
        packer = zlib.compressobj(1, wbits=31)
        body = b"".join(packer.compress(bytes(1_000_000)) for _ in range(300)) + packer.flush()
        for _layer in codings[1:]:
            body = gzip.compress(body)
        return 200, {"Content-Encoding": ", ".join(codings)}, body

    return script


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (bomb("gzip"), "more than"),
        (bomb("gzip", "gzip"), "can't be decoded"),
        (plain(200, b" " * 50_000_000), "more than"),
        (plain(500, b" " * 50_000_000), "more than"),
        (plain(200, gzip.compress(b"{}" * 99)[:-9], Content_Encoding="gzip"), "can't be decoded"),
    ],
)
def test_a_large_answer_is_refused_before_it_fills_the_memory(script: Script, words: str) -> None:
    told = Told(script)
    with told as client:
        tracemalloc.start()
        try:
            with pytest.raises(BadAnswer, match=words):
                client.analyze_batch([make(number) for number in range(10)])
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < 30e6
    assert len(told.requests) == 1


@contextmanager
def dripping(*first: bytes, drop: bytes, secure: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that sends some bytes, and then one drop after another for as long as anybody listens."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    def drip(connection: socket.socket) -> None:
        with suppress(OSError), secure.wrap_socket(connection, server_side=True) if secure else connection as opened:
            for part in first:
                opened.sendall(part)
            while True:
                opened.sendall(drop)
                time.sleep(0.02)

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        ([HEAD + b"Content-Type: application/json\r\n\r\n"], b" "),
        ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n"], b"1\r\n \r\n"),
        ([HEAD, b"X-Slow: "], b"x"),
        ([], b""),
    ],
    ids=["body", "chunks", "headers", "silence"],
)
def test_a_slow_answer_has_an_end(first: list[bytes], drop: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen_shots.client.api.ANSWER_SECONDS", 0.4)
    monkeypatch.setattr("qwen_shots.client.api.HEALTH_SECONDS", 0.4)
    began = time.monotonic()
    with dripping(*first, drop=drop) as url, ShotClient(url, KEY, retries=0) as client:
        for ask in (client.health, lambda: client.analyze_batch([make(1)])):
            with pytest.raises(Unreachable, match="in time"):
                ask()
    assert time.monotonic() - began < 10


def test_a_slow_proxy_has_an_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen_shots.client.api.HEALTH_SECONDS", 0.4)
    began = time.monotonic()
    for scheme in ("http", "https"):
        with dripping(HEAD, b"X-Slow: ", drop=b"x") as url:
            monkeypatch.setenv(f"{scheme}_proxy", url)
            with ShotClient(f"{scheme}://films.example", KEY) as client, pytest.raises(Unreachable, match="in time"):
                client.health()
    assert time.monotonic() - began < 10


def test_a_slow_server_behind_tls_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never finishes the handshake, and one that never finishes its answer."""
    monkeypatch.setattr("qwen_shots.client.api.HEALTH_SECONDS", 0.6)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    for secure in (context, None):
        with dripping(HEAD, b"X-Slow: ", drop=b"x", secure=secure) as url:
            address = url.replace("http://127.0.0.1", "https://localhost")
            with ShotClient(address, KEY) as client, pytest.raises(Unreachable):
                began = time.monotonic()
                client.health()
            assert time.monotonic() - began < 5


def test_a_server_that_takes_no_request_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the system's buffers hold, and nobody reads it."""
    monkeypatch.setattr("qwen_shots.client.api.ANSWER_SECONDS", 0.4)
    with (
        dripping(drop=b"") as url,
        ShotClient(url, KEY, retries=0) as client,
        pytest.raises(Unreachable, match="in time"),
    ):
        client.analyze_batch([make(1, images=["A" * 40_000_000])])


# --- what must not be shown ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["9", "secret", "99999"])
def test_a_password_in_the_address_is_not_told(port: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises((Unreachable, InvalidInput)) as caught:
        ShotClient(f"http://somebody:secret@127.0.0.1:{port}/path", KEY).health()
    assert "secret" not in f"{caught.value}{caught.value!r}{caplog.text}"
    assert "somebody" not in f"{caught.value}{caplog.text}"


@pytest.mark.parametrize("url", ["http://a:se/cret@127.0.0.1", "http://a:9/cret@127.0.0.1", "http://a/cret@host"])
def test_a_password_with_a_slash_is_not_told(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ShotClient(url, KEY)
    assert "cret" not in str(caught.value)


def test_a_name_and_password_in_the_address_are_sent_where_no_key_is() -> None:
    """To a proxy that wants them (RFC 7617); a key has the same header."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_error(500)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for key in ("", "the-key"):
        with ShotClient(f"http://me:pa%40ss@127.0.0.1:{server.server_port}", key) as client:
            assert client.address == f"http://127.0.0.1:{server.server_port}"
            with pytest.raises(ServerFailed):
                client.health()
    server.shutdown()
    server.server_close()
    assert seen == ["Basic " + base64.b64encode(b"me:pa@ss").decode(), "Bearer the-key"]
