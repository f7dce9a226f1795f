"""What a browser is told of the pages that ask: preflights come without a key, and pages that may ask read answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from server import create_app
from settings import Settings
from tests.fakes import FakeEngine
from tests.helpers import AUTH, LOCALHOST, shot

STUDIO = "https://studio.example"
LOCAL = ["http://localhost:5173", "http://127.0.0.1", "https://[::1]:8443"]
OTHERS = [
    "https://evil.example",
    "http://localhost.evil.example",
    "https://studio.example:444",
    "null",
    "http://[::1",
    "http://x@localhost",
    "file://localhost",
    "http://[::1].evil.example",
]
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.fixture
def page(settings: Settings) -> Iterator[TestClient]:
    """A browser on this machine, at a server that lets a studio's pages in, too."""
    server = settings.server.model_copy(update={"allowed_origins": [STUDIO]})
    app = create_app(settings.model_copy(update={"server": server}), FakeEngine(list(settings.attributes)))
    with TestClient(app, base_url=LOCALHOST, client=("127.0.0.1", 5000)) as client:
        yield client


@pytest.mark.parametrize("origin", [STUDIO, *LOCAL])
@pytest.mark.parametrize("path", ["/analyze", "/analyze_batch", "/metrics"])
def test_a_preflight_needs_no_key(page: TestClient, origin: str, path: str) -> None:
    answer = page.options(path, headers=PREFLIGHT | {"Origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert {"authorization", "content-type"} <= {
        name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")
    }
    assert "Origin" in answer.headers["vary"]


def test_a_public_page_may_ask_this_machine(page: TestClient) -> None:
    asked = PREFLIGHT | {"Origin": STUDIO, "Access-Control-Request-Private-Network": "true"}
    answer = page.options("/analyze", headers=asked)
    assert answer.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize("origin", LOCAL)
def test_a_page_of_this_machine_reads_its_answer(page: TestClient, origin: str) -> None:
    answer = page.post("/analyze", json=shot(1), headers=AUTH | {"Origin": origin})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_a_page_reads_why_it_is_refused(page: TestClient, headers: dict[str, str]) -> None:
    answer = page.post("/analyze", json=shot(1), headers=headers | {"Origin": STUDIO})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, STUDIO)


def test_the_default_key_is_not_for_the_pages_of_others(page: TestClient) -> None:
    """It is public, so a page that is let in must bring one of its own."""
    assert page.post("/analyze", json=shot(1), headers=AUTH | {"Origin": STUDIO}).status_code == 401


@pytest.mark.parametrize("origin", OTHERS)
def test_another_page_is_told_nothing(page: TestClient, origin: str) -> None:
    for answer in (
        page.options("/analyze", headers=PREFLIGHT | {"Origin": origin}),
        page.get("/health", headers={"Origin": origin}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_no_page_at_all(page: TestClient) -> None:
    answer = page.post("/analyze", json=shot(1), headers=AUTH)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("origin", [STUDIO, LOCAL[0]])
def test_a_preflight_for_an_unknown_method_is_a_problem(page: TestClient, origin: str) -> None:
    answer = page.options("/analyze", headers={"Origin": origin, "Access-Control-Request-Method": "FOO"})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    problem = answer.json()
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "Access-Control-Request-Method" in problem["detail"]
    assert "POST" in problem["detail"]
