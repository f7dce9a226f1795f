"""Loading, busy, draining, failing: which status, and when to try again; and what a client that goes away leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from engines.base import ShotPictures, Status
from qwen_shots.errors import EngineLoading, EngineLost, NotANumber, QueueFull, QwenShotsError, Unavailable
from server import create_app
from settings import Settings
from tests.fakes import FakeEngine
from tests.helpers import AUTH, LOCALHOST, assert_problem, shot

ERRORS = [
    (EngineLoading("the model is being loaded"), 503),
    (EngineLost("the engine stopped"), 503),
    (QueueFull("full", 7), 503),
    (NotANumber("not a number"), 500),
]


def client_whose_engine_says(settings: Settings, *errors: BaseException | None) -> TestClient:
    """Each shot in turn gets one of the errors; None is a good answer."""
    script: Iterator[BaseException | None] = iter(errors)

    def answer(_: ShotPictures) -> None:
        error = next(script)
        if error:
            raise error

    app = create_app(settings, FakeEngine(list(settings.attributes), answer))
    return TestClient(app, base_url=LOCALHOST, headers=AUTH, client=("127.0.0.1", 5000))


@pytest.mark.parametrize(("error", "status"), ERRORS)
def test_a_shot(settings: Settings, error: QwenShotsError, status: int) -> None:
    with client_whose_engine_says(settings, error) as client:
        answer = client.post("/analyze", json=shot(1))
        assert_problem(answer, status, error.detail)
        expected = str(error.retry_after) if isinstance(error, Unavailable) else None
        assert answer.headers.get("retry-after") == expected


@pytest.mark.parametrize(("error", "status"), ERRORS)
def test_some_shots_of_a_batch(settings: Settings, error: QwenShotsError, status: int) -> None:
    with client_whose_engine_says(settings, error, None) as client:
        answer = client.post("/analyze_batch", json={"shots": [shot(1), shot(2)]})
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 1
    assert [row["detail"] for row in answer.json()["errors"]] == [error.detail]


@pytest.mark.parametrize(("error", "status"), ERRORS)
def test_all_shots_of_a_batch(settings: Settings, error: QwenShotsError, status: int) -> None:
    with client_whose_engine_says(settings, error, error) as client:
        answer = client.post("/analyze_batch", json={"shots": [shot(1), shot(2)]})
    if status == 500:
        assert (answer.status_code, len(answer.json()["errors"])) == (200, 2)
    else:
        assert_problem(answer, status, error.detail)
        assert "retry-after" in answer.headers


def test_an_unforeseen_error_costs_its_shot_alone_and_tells_nothing(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    errors = (KeyError("sesame"), None, KeyError("sesame"))
    with client_whose_engine_says(settings, *errors) as client:
        batch = client.post("/analyze_batch", json={"shots": [shot(1), shot(2)]})
        alone = client.post("/analyze", json=shot(1))
        metrics = client.get("/metrics").text
    assert (len(batch.json()["results"]), len(batch.json()["errors"])) == (1, 1)
    assert_problem(alone, 500, "log")
    assert "sesame" not in batch.text + alone.text
    assert "sesame" in caplog.text
    assert 'qwen_shots_total{outcome="shot-failed"} 2.0' in metrics


class Outlaw(BaseException):
    """Neither an analysis nor an Exception."""


@pytest.mark.parametrize("outcome", [asyncio.CancelledError(), Outlaw()])
def test_no_shot_vanishes_from_a_batch(settings: Settings, outcome: BaseException) -> None:
    with client_whose_engine_says(settings, None, outcome, None, outcome) as client:
        batch = client.post("/analyze_batch", json={"shots": [shot(1), shot(2), shot(3)]}).json()
        alone = client.post("/analyze", json=shot(1))
        metrics = client.get("/metrics").text
    # Shots reach the engine in the order in which their frames are decoded.
    (error,) = batch["errors"]
    assert error["index"] + 1 == error["shot_id"]
    assert error["type"] == "urn:qwen-shots:error:shot-failed"
    assert [row["shot_id"] for row in batch["results"]] == sorted({1, 2, 3} - {error["shot_id"]})
    assert_problem(alone, 500)
    assert 'qwen_shots_total{outcome="shot-failed"} 2.0' in metrics


def test_an_error_outside_of_a_shot(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> bytes:
        raise KeyError("sesame")

    monkeypatch.setattr("telemetry.generate_latest", fail)
    answer = client.get("/metrics")
    assert_problem(answer, 500, "request_id")
    assert "sesame" not in answer.text


@pytest.mark.parametrize("status", [Status.LOADING, Status.DEGRADED])
def test_health_when_not_healthy(client: TestClient, engine: FakeEngine, status: Status) -> None:
    engine.status = status
    answer = client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (503, status.value)
    assert "retry-after" in answer.headers
    assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/analyze", "/analyze_batch"])
def test_loading_and_draining_are_told_before_the_body_is_checked(
    client: TestClient, engine: FakeEngine, path: str
) -> None:
    engine.status = Status.LOADING
    loading = client.post(path, content="not even JSON")
    client.app.state.draining = True  # type: ignore[attr-defined]
    draining = client.post(path, content="not even JSON")
    assert client.get("/health").json()["status"] == "draining"
    for answer, word in ((loading, "loaded"), (draining, "stopped")):
        assert_problem(answer, 503, word)
        assert "retry-after" in answer.headers


@pytest.mark.parametrize("path", ["/analyze", "/analyze_batch"])
def test_a_full_queue_is_told_before_the_body_is_read(client: TestClient, engine: FakeEngine, path: str) -> None:
    engine.full = QueueFull("full", 7)
    answer = client.post(path, content="not even JSON")
    assert_problem(answer, 503, "full")
    assert answer.headers["retry-after"] == "7"
    engine.full, engine.queue_depth = None, 10**6
    assert_problem(client.post(path, content="not even JSON"), 503, "server.max_queue_shots")


def of_one_second(settings: Settings) -> Settings:
    return settings.model_copy(update={"server": settings.server.model_copy(update={"request_timeout": 1})})


def test_a_shot_that_takes_too_long_costs_no_other(settings: Settings) -> None:
    def slow_once(_: ShotPictures) -> None:
        engine.delay = 3600

    engine = FakeEngine(list(settings.attributes), slow_once)
    app = create_app(settings, engine)
    with TestClient(app, base_url=LOCALHOST, headers=AUTH, client=("127.0.0.1", 5000)) as client:
        rows = client.post("/analyze_batch", json={"shots": [shot(1)]}).json()
        assert len(rows["results"]) == 1
        app.state.settings = of_one_second(settings)  # not before: the good shot may take as long as it does
        answer = client.post("/analyze", json=shot(1))
        assert_problem(answer, 503, "1 s", "server.request_timeout")
        assert answer.json()["type"] == "urn:qwen-shots:error:timeout"
        assert engine.looking == 0


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=5", 5),
        ("respond-async, Wait = 7; why=x", 7),
        ('wait="20"', 20),
        ("wait=9, wait=8", 9),
        (("respond-async", "wait=6", "wait=8"), 6),
        ("wait=600", 600),
        ("wait=601", None),
        ("wait=0", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=\u00b2", None),
        ("wait=" + "9" * 5000, None),
        ("wait", None),
        ("", None),
    ],
)
def test_a_client_may_say_how_long_it_waits(
    settings: Settings, prefer: str | tuple[str, ...], seconds: int | None
) -> None:
    lines = prefer if isinstance(prefer, tuple) else (prefer,)
    headers: Any = [(b"Prefer", line.encode()) for line in lines]
    deadlines: list[float] = []
    engine = FakeEngine(list(settings.attributes), lambda shot: deadlines.append(shot.deadline))
    with TestClient(
        create_app(settings, engine), base_url=LOCALHOST, headers=AUTH, client=("127.0.0.1", 5000)
    ) as client:
        began = time.time()
        answer = client.post("/analyze_batch", json={"shots": [shot(1)]}, headers=headers)
        ended = time.time()
    assert len(answer.json()["results"]) == 1
    assert answer.headers.get("preference-applied") == (f"wait={seconds}" if seconds else None)
    (deadline,) = deadlines
    assert began <= deadline - (seconds or settings.server.request_timeout) <= ended


def test_who_waits_a_second_is_told_after_a_second(settings: Settings) -> None:
    engine = FakeEngine(list(settings.attributes))
    engine.delay = 3600
    with TestClient(
        create_app(settings, engine), base_url=LOCALHOST, headers=AUTH, client=("127.0.0.1", 5000)
    ) as client:
        answer = client.post("/analyze", json=shot(1), headers={"Prefer": "wait=1"})
    assert_problem(answer, 503, "1 s", "Prefer: wait")
    assert answer.headers["retry-after"] == "1"
    assert engine.looking == 0


def test_what_is_not_done_when_a_stop_runs_out_of_time_is_told_so(client: TestClient, engine: FakeEngine) -> None:
    engine.delay = 3600
    client.app.state.out_of_time.set()  # type: ignore[attr-defined]
    assert_problem(client.post("/analyze", json=shot(1)), 503, "being stopped")
    assert engine.looking == 0


@pytest.mark.parametrize("path", ["/analyze", "/analyze_batch"])
def test_a_client_that_goes_away_takes_its_work_with_it(settings: Settings, path: str) -> None:
    engine = FakeEngine(list(settings.attributes))
    engine.delay = 3600
    app = create_app(settings, engine)

    async def go_away() -> list[int]:
        async with app.router.lifespan_context(app):
            statuses = await asyncio.wait_for(post_and_leave(app, path, engine), 30)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return statuses

    assert asyncio.run(go_away()) == [499]
    assert engine.looking == 0
    assert app.state.in_hand == 0


async def post_and_leave(app: object, path: str, engine: FakeEngine) -> list[int]:
    """Send a request, go away as soon as the engine looks at it; what the server would have answered."""
    import json

    body = json.dumps(shot(1) if path == "/analyze" else {"shots": [shot(1), shot(2)]}).encode()
    to_come = [{"type": "http.request", "body": body, "more_body": False}]
    statuses: list[int] = []

    async def receive() -> dict[str, object]:
        if to_come:
            return to_come.pop()
        while engine.looking == 0:
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(int(str(message["status"])))

    headers = [
        (b"host", b"localhost"), (b"content-type", b"application/json"),
        (b"authorization", AUTH["Authorization"].encode()),
    ]  # fmt: skip
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": headers, "client": ("127.0.0.1", 5000), "server": ("127.0.0.1", 80), "scheme": "http",
        "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip
    await app(scope, receive, send)  # type: ignore[operator]
    return statuses
