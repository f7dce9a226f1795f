"""What clients do over a real connection: too much, nothing, nonsense, and leaving early."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.helpers import (
    AUTH,
    PATIENCE_SECONDS,
    assert_problem,
    engine_standing_still,
    free_port,
    running_server,
    server_environment,
    shot,
)
from tests.scripts.processes import wait_for

HEAD = "POST /analyze HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
KEY_LINE = f"Authorization: {AUTH['Authorization']}\r\n"
MIB = 2**20


Server = tuple[int, subprocess.Popen[str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that listens everywhere, takes bodies of 1 MiB, and lets one shot wait; its port and its process."""
    port = free_port()
    limits = {"SERVER__HOST": "0.0.0.0", "SERVER__MAX_BODY_MIB": "1", "SERVER__MAX_QUEUE_SHOTS": "1"}
    log = tmp_path_factory.mktemp("small") / "server.log"
    with running_server(server_environment(port, **limits), port, log) as (_, process):
        yield port, process


@pytest.fixture(scope="module")
def port(server: Server) -> int:
    return server[0]


@pytest.fixture
def small(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=AUTH, timeout=60) as client:
        yield client


def own_address() -> str | None:
    """An address of this machine that is not loopback; no packet is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return None if address.startswith("127.") else address


def first_answer(port: int, request: str | bytes) -> httpx.Response:
    """Send exactly this, and read the answer while the connection is still open."""
    data = request if isinstance(request, bytes) else request.encode("latin-1")
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(data)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def wait_for_count(client: httpx.Client, sample: str, count: float) -> None:
    """Wait until a sample of /metrics, named with its labels, has reached so much."""

    def value() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{sample} "))

    wait_for(lambda: value() >= count)


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
def test_answers_before_the_body_is_sent(port: int, expect: str) -> None:
    length = f"Content-Length: {MIB + 1}\r\n{expect}\r\n"
    assert_problem(first_answer(port, HEAD + KEY_LINE + length), 413, "1 MiB", "server.max_body_mib")
    assert_problem(first_answer(port, HEAD + length), 401, "Authorization")


def test_answers_while_a_chunked_body_is_still_coming(port: int) -> None:
    chunk = f"{MIB + 1:x}\r\n".encode() + b" " * (MIB + 1) + b"\r\n"
    request = f"{HEAD}{KEY_LINE}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk
    assert_problem(first_answer(port, request), 413, "1 MiB")


@pytest.mark.parametrize("mib", [2, 80])
def test_a_client_that_sends_on_still_reads_its_answer(port: int, mib: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    connection.request("POST", "/analyze", b" " * (mib * MIB), AUTH | {"Content-Type": "application/json"})
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize("key", ["é", "ÿ" * 5000, "ключ".encode().decode("latin-1"), "helloagorevski\xa0", "\t"])
def test_keys_in_any_letters(port: int, key: str) -> None:
    assert_problem(first_answer(port, f"{HEAD}Authorization: Bearer {key}\r\n\r\n"), 401, "key")


def test_two_keys(port: int) -> None:
    assert_problem(first_answer(port, f"{HEAD}{KEY_LINE}{KEY_LINE}\r\n"), 401, "one header")


def test_the_default_key_from_another_address(port: int) -> None:
    address = own_address()
    if address is None:
        pytest.skip("needs an address that is not loopback")
    with httpx.Client(base_url=f"http://{address}:{port}", headers=AUTH, timeout=PATIENCE_SECONDS) as client:
        assert client.get("/health").status_code == 200
        answer = client.post("/analyze", json=shot(1))
    assert_problem(answer, 401, "this machine only", "server.api_key")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/analyze", "POST"),
        ("OPTIONS", "/analyze", "POST"),
        ("POST", "/metrics", "GET"),
        ("BREW", "/docs", "GET"),
    ],
)
def test_another_method(small: httpx.Client, method: str, path: str, allowed: str) -> None:
    answer = small.request(method, path)
    assert_problem(answer, 405, "/docs")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    "path", ["/nowhere", "/health/", "/analyze/", "/static/nothing.js", "/static/%2e%2e/server.py", "/%0d%0aINFO%20x"]
)
def test_another_path(small: httpx.Client, path: str) -> None:
    assert_problem(small.get(path), 404, "/docs")


@pytest.mark.parametrize("path", ["/health", "/health/live"])
def test_head(small: httpx.Client, path: str) -> None:
    answer = small.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_clients_request_id_is_not_taken_over(small: httpx.Client) -> None:
    answer = small.get("/nowhere", headers={"X-Request-ID": "sesame"})
    assert "sesame" not in answer.text + answer.headers["x-request-id"]


def test_metrics_have_no_labels_of_the_clients_making(small: httpx.Client) -> None:
    for method in ("GET", "SESAME"):
        small.request(method, "/sesame")
        small.request(method, "/static/sesame", params={"sesame": "1"})
    assert "sesame" not in small.get("/metrics").text.lower()


def test_a_full_queue(server: Server, small: httpx.Client) -> None:
    body = {"shots": [shot(number) for number in range(10)]}
    with ThreadPoolExecutor(1) as pool:
        with engine_standing_still(server[1]):
            asked = pool.submit(small.post, "/analyze_batch", json=body)
            wait_for_count(small, 'qwen_shots_total{outcome="queue-full"}', 8)
        answer = asked.result()
    assert answer.status_code == 200
    results, errors = answer.json()["results"], answer.json()["errors"]
    assert 1 <= len(results) <= 2  # one is in the engine's hands; none waits when all others came at the same moment
    assert sorted(row["shot_id"] for row in results + errors) == list(range(10))
    assert {row["type"] for row in errors} == {"urn:qwen-shots:error:queue-full"}


def test_a_client_that_leaves_in_the_middle_of_a_batch(port: int, small: httpx.Client) -> None:
    body = json.dumps({"shots": [shot(number) for number in range(10)]})
    head = HEAD.replace("/analyze", "/analyze_batch")
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{head}{KEY_LINE}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    wait_for_count(small, 'qwen_requests_total{route="/analyze_batch",status="499"}', 1)
    assert small.post("/analyze", json=shot(1)).status_code == 200
    assert "qwen_queue_shots 0.0" in small.get("/metrics").text


def test_a_client_that_leaves_in_the_middle_of_its_body(port: int, small: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{HEAD}{KEY_LINE}Content-Length: 100\r\n\r\n{{".encode())
    wait_for_count(small, 'qwen_requests_total{route="/analyze",status="499"}', 1)
