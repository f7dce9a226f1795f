"""The key and the body limit."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from problems import TYPE_PREFIX
from security import Gatekeeper
from server import create_app
from serving.api_docs import PROBLEMS
from settings import Settings
from tests.fakes import FakeEngine
from tests.helpers import AUTH, LOCALHOST, PATIENCE_SECONDS, shot

OWN = "a-key-of-my-own"
ELSEWHERE = ("203.0.113.9", 5000)
HERE = ("127.0.0.1", 5000)


def client_of(settings: Settings, address: tuple[str, int], **server: object) -> TestClient:
    changed = settings.model_copy(update={"server": settings.server.model_copy(update=server)})
    return TestClient(create_app(changed, FakeEngine(list(settings.attributes))), base_url=LOCALHOST, client=address)


def status(client: TestClient, token: str | None, **headers: str) -> int:
    if token is not None:
        headers["Authorization"] = token
    answer = client.post("/analyze", json=shot(1), headers=headers)
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
    return int(answer.status_code)


def test_tokens(settings: Settings) -> None:
    with client_of(settings, HERE) as client:
        assert status(client, AUTH["Authorization"]) == 200
        assert status(client, AUTH["Authorization"].replace("Bearer", "bearer")) == 200
        for wrong in (None, "", "Bearer", "Bearer wrong", "Basic helloagorevski", "helloagorevski"):
            assert status(client, wrong) == 401


def test_the_default_key_works_from_this_machine_only(settings: Settings) -> None:
    with client_of(settings, ELSEWHERE) as client:
        answer = client.post("/analyze", json=shot(1), headers=AUTH)
        assert answer.status_code == 401
        assert "server.api_key" in answer.json()["detail"]
    with client_of(settings, HERE) as client:
        assert status(client, AUTH["Authorization"], **{"X-Forwarded-For": "127.0.0.1"}) == 401
    with client_of(settings, ("::1", 1)) as client:
        assert status(client, AUTH["Authorization"]) == 200


def test_an_own_key_works_from_anywhere_and_the_default_nowhere(settings: Settings) -> None:
    for address in (HERE, ELSEWHERE):
        with client_of(settings, address, api_key=OWN) as client:
            assert status(client, f"Bearer {OWN}") == 200
            assert status(client, AUTH["Authorization"]) == 401


@pytest.mark.parametrize("path", ["/metrics", "/nowhere", f"{LOCALHOST}//analyze", "/health/", "/docs/x", "/%61nalyze"])
def test_everything_but_the_public_paths_needs_the_key(settings: Settings, path: str) -> None:
    with client_of(settings, HERE) as client:
        assert client.get(path, follow_redirects=False).status_code == 401


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Anything", ""), ("Forwarded", "for=127.0.0.1"),
        ("Via", "1.1 x"), ("X-Real-IP", "127.0.0.1"), ("CF-Connecting-IP", "127.0.0.1"), ("CF-Ray", "1"),
        ("X-Envoy-External-Address", "127.0.0.1"), ("CDN-Loop", "cdn"), ("Proxy-Connection", "keep-alive"),
        ("Origin", "https://example.com"), ("Origin", "http://127.0.0.1.example.com:8000"), ("Origin", "null"),
        ("Origin", "http://[::1"), ("Origin", ""), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-site"),
        ("Host", "example.com"), ("Host", "example.com:8000"), ("Host", "localhost.example.com"), ("Host", ""),
        ("Host", "notlocalhost"), ("Host", "127.0.0.1.example.com"), ("Host", "192.0.2.1:8000"), ("Host", "[::2]"),
        ("Host", "[::1"), ("Host", "0.0.0.0:8000"),
        ("Host", "evil@localhost"), ("Host", "localhost/evil"), ("Host", "[::1].evil.com"), ("Host", "localhost:evil"),
        ("Origin", "http://x@localhost"), ("Origin", "file://localhost"), ("Origin", "http://[::1].evil.example"),
        ("Fly-Client-IP", "127.0.0.1"), ("X-Azure-ClientIP", "127.0.0.1"), ("X-Vercel-Forwarded-For", "127.0.0.1"),
        ("X-Amzn-Trace-Id", "Root=1"), ("DO-Connecting-IP", "127.0.0.1"), ("WL-Proxy-Client-IP", "127.0.0.1"),
        ("Client-IP", "127.0.0.1"), ("X-Varnish", "1"), ("Tailscale-User-Login", "me"), ("X-MS-Proxy", "1"),
        ("X-Original-URL", "/"), ("Proxy-Client-IP", "127.0.0.1"), ("X-Goog-IAP-JWT-Assertion", "1"),
    ],
)  # fmt: skip
def test_the_default_key_is_not_for_what_was_passed_on(settings: Settings, header: str, value: str) -> None:
    with client_of(settings, HERE) as client:
        assert status(client, AUTH["Authorization"], **{header: value}) == 401
    with client_of(settings, HERE, api_key=OWN) as client:
        assert status(client, f"Bearer {OWN}", **{header: value}) == 200


@pytest.mark.parametrize("origin", ["http://localhost:8000", "http://127.0.0.1:8000", "http://[::1]:8000"])
def test_the_default_key_works_for_pages_of_this_machine(settings: Settings, origin: str) -> None:
    with client_of(settings, HERE) as client:
        for site in ("same-origin", "same-site", "cross-site"):  # 127.0.0.1 and localhost are two sites to a browser
            assert status(client, AUTH["Authorization"], **{"Origin": origin, "Sec-Fetch-Site": site}) == 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8000",
        "localhost.:8000",
        "a.localhost",
        "127.0.0.1",
        "127.8.9.1:8000",
        "[::1]:8000",
        "[::1]",
    ],
)
def test_the_default_key_works_at_every_name_of_this_machine(settings: Settings, host: str) -> None:
    with client_of(settings, HERE) as client:
        for site in ("none", "same-origin"):
            assert client.get("/metrics", headers=AUTH | {"Host": host, "Sec-Fetch-Site": site}).status_code == 200


def test_metrics_are_not_for_a_site_whose_name_leads_here(settings: Settings) -> None:
    rebound = AUTH | {"Host": "shots.example.com:8000", "Sec-Fetch-Site": "same-origin"}
    with client_of(settings, HERE) as client:
        refused = client.get("/metrics", headers=rebound)
        assert refused.status_code == 401
        assert "server.api_key" in refused.json()["detail"]
        assert client.get("/health", headers=rebound).status_code == 200
    with client_of(settings, HERE, api_key=OWN) as client:
        assert client.get("/metrics", headers=rebound | {"Authorization": f"Bearer {OWN}"}).status_code == 200


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("HTTP/1.0\r\nConnection: close", 401),
        ("HTTP/1.0\r\nConnection: Close", 401),
        ("HTTP/1.0\r\nConnection: TE, CLOSE", 401),
        ("HTTP/1.0", 200),
        ("HTTP/1.1\r\nConnection: close", 200),
    ],
)
def test_the_default_key_is_not_for_what_nginx_passes_on(live_url: str, head: str, expected: int) -> None:
    address = live_url.removeprefix("http://")
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as connection:
        key = AUTH["Authorization"]
        connection.sendall(f"GET /metrics {head}\r\nHost: {address}\r\nAuthorization: {key}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == expected


@pytest.mark.parametrize("address", ["127.1.2.3", "::ffff:127.0.0.1"])
def test_every_loopback_address_is_this_machine(settings: Settings, address: str) -> None:
    with client_of(settings, (address, 5000)) as client:
        assert status(client, AUTH["Authorization"]) == 200


@pytest.mark.parametrize("address", ["192.0.2.1", "::ffff:192.0.2.1", "localhost", "0.0.0.0", "", "testclient"])
def test_no_other_address_is(settings: Settings, address: str) -> None:
    with client_of(settings, (address, 5000)) as client:
        assert status(client, AUTH["Authorization"]) == 401


def test_a_body_that_stops_coming_in(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr("security.BODY_PAUSE_SECONDS", 0.01)
    pieces = [{"type": "http.request", "body": b"{", "more_body": True}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return pieces.pop() if pieces else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: Any) -> None:
        sent.append(message)

    async def read_all(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    headers = [(b"host", b"localhost"), (b"authorization", AUTH["Authorization"].encode())]
    scope = {"type": "http", "path": "/analyze", "headers": headers, "client": HERE}
    asyncio.run(Gatekeeper(read_all, settings.server)(scope, receive, send))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    slug, title, detail = PROBLEMS[408]
    body = json.loads(sent[1]["body"])
    assert (body["type"], body["title"], body["detail"]) == (TYPE_PREFIX + slug, title, detail)


def test_a_body_that_drips(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr("security.BODY_PAUSE_SECONDS", 0.2)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    async def read_all(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    headers = [(b"host", b"localhost"), (b"authorization", AUTH["Authorization"].encode())]
    scope = {"type": "http", "path": "/analyze", "headers": headers, "client": HERE}
    asyncio.run(asyncio.wait_for(Gatekeeper(read_all, settings.server)(scope, receive, send), 10))
    assert sent[0]["status"] == 408


def test_bodies_in_memory_have_a_limit_together(settings: Settings) -> None:
    server = settings.server.model_copy(update={"max_body_mib": 1})
    statuses: list[int] = []
    held = asyncio.Event()
    holding: list[Any] = []

    async def read_and_hold(scope: Any, receive: Any, send: Any) -> None:
        holding.append(await receive())
        await held.wait()

    async def scenario() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b" " * 2**20, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                assert (b"retry-after", b"5") in message["headers"]

        gate = Gatekeeper(read_and_hold, server)
        headers = [(b"host", b"localhost"), (b"authorization", AUTH["Authorization"].encode())]
        scope = {"type": "http", "path": "/analyze", "headers": headers, "client": HERE}
        tasks = [asyncio.create_task(gate(scope, receive, send)) for _ in range(20)]
        while len(holding) + len(statuses) < len(tasks):
            await asyncio.sleep(0)
        held.set()
        await asyncio.gather(*tasks)
        assert gate._held == 0

    asyncio.run(scenario())
    assert statuses == [503] * 4


def test_several_keys(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# the film studio's\nkey-from-a-file\n\n")
    for address in (HERE, ELSEWHERE):
        with client_of(settings, address, api_keys=["first-key", "second-key"], api_key_file=str(file)) as client:
            for key in ("first-key", "second-key", "key-from-a-file"):
                assert status(client, f"Bearer {key}") == 200
            for key in ("helloagorevski", "first-ke", "first-key,second-key", "the film studio's"):
                assert status(client, f"Bearer {key}") == 401
    with client_of(settings, ELSEWHERE, api_key=OWN, api_keys=["first-key"]) as client:
        assert status(client, f"Bearer {OWN}") == status(client, "Bearer first-key") == 200


def test_the_body_limit(settings: Settings) -> None:
    with client_of(settings, HERE, max_body_mib=1) as client:
        declared = client.post(
            "/analyze", content=b" " * (2**20 + 1), headers=AUTH | {"Content-Type": "application/json"}
        )
        assert declared.status_code == 413
        assert "server.max_body_mib" in declared.json()["detail"]

        def chunks() -> Iterator[bytes]:
            for _ in range(3):
                yield b" " * 2**19

        chunked = client.post("/analyze", content=chunks(), headers=AUTH | {"Content-Type": "application/json"})
        assert chunked.status_code == 413
