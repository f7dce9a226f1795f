"""The routes, on a real server and on a fake engine where a fault is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from engines.base import ShotPictures, Status
from qwen_shots.errors import EngineLoading, EngineLost, NotANumber, QueueFull
from qwen_shots.fusion import recompute
from qwen_shots.schemas import Evidence
from server import create_app
from settings import Settings
from tests.fakes import FakeEngine
from tests.helpers import AUTH, BUNDLED, encode, scene, shot


@pytest.fixture
def engine(settings: Settings) -> FakeEngine:
    return FakeEngine(list(settings.attributes))


@pytest.fixture
def client(settings: Settings, engine: FakeEngine) -> Iterator[TestClient]:
    app = create_app(settings, engine)
    with TestClient(app, headers=AUTH, client=("127.0.0.1", 5000), raise_server_exceptions=False) as client:
        yield client


def test_health(live: httpx.Client) -> None:
    answer = live.get("/health", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "healthy",
        "model": BUNDLED,
        "device": "cpu",
        "gpu_count": 0,
        "gpu_memory_total": None,
    }
    assert live.get("/health/live").status_code == 200


def test_one_shot(live: httpx.Client, settings: Settings) -> None:
    answer = live.post("/analyze", json=shot(7)).json()
    assert set(answer) == {"shot_id", "caption", "attributes"}
    assert answer["shot_id"] == 7
    assert list(answer["attributes"]) == list(settings.attributes)
    assert all(0 <= score <= 1 for score in answer["attributes"].values())


def test_evidence_recomputes_the_answer(live: httpx.Client) -> None:
    answer = live.post("/analyze?explain=true", json=shot("a")).json()
    evidence = Evidence.model_validate(answer["evidence"])
    assert recompute(evidence) == answer["attributes"]
    assert [frame.index for frame in evidence.key_frames] == [0, 2, 4]


def test_shot_without_sound(live: httpx.Client) -> None:
    silent = shot(1)
    del silent["audio_features"]
    answers = [live.post("/analyze", json=body).json() for body in (silent, shot(1, audio_features=None))]
    assert answers[0] == answers[1]


def test_one_bad_shot_costs_no_other(live: httpx.Client) -> None:
    shots = [shot(number) for number in range(10)]
    clean = live.post("/analyze_batch", json={"shots": shots}).json()
    assert [row["shot_id"] for row in clean["results"]] == list(range(10))
    assert clean["errors"] == []
    for bad in range(10):
        broken = [*shots[:bad], shot(bad, images=["!"]), *shots[bad + 1 :]]
        answer = live.post("/analyze_batch", json={"shots": broken}).json()
        assert [row["shot_id"] for row in answer["results"]] == [n for n in range(10) if n != bad]
        assert [(row["index"], row["shot_id"]) for row in answer["errors"]] == [(bad, bad)]
        for row, reference in zip(answer["results"], clean["results"][:bad] + clean["results"][bad + 1 :], strict=True):
            assert row["caption"] == reference["caption"]
            assert row["attributes"] == pytest.approx(reference["attributes"], abs=1e-4)


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in shot(1).items() if name != field}


GOOD_FRAME = encode(scene(1))

# What is wrong, the body, and a word that the detail must have.
BAD_SHOTS: dict[str, tuple[Any, str]] = {
    "missing field": (without("images"), "images"),
    "missing time": (without("end_time"), "end_time"),
    "unknown field": (shot(1, movie="x"), "unknown field"),
    "unknown audio field": (shot(1, audio_features={"loudness": 1.0}), "audio_features"),
    "text for a number": (shot(1, start_time="10"), "start_time"),
    "a truth value for a name": (shot(shot_id=1) | {"shot_id": True}, "shot_id"),
    "infinite time": (shot(1, end_time=math.inf), "end_time"),
    "not a number": (shot(1, audio_features={"tempo": math.nan}), "audio_features.tempo"),
    "no images": (shot(1, images=[]), "at least 1"),
    "11 images": (shot(1, images=[GOOD_FRAME] * 11), "at most 10"),
    "12 coefficients": (shot(1, audio_features={"mfcc_mean": [0.0] * 12}), "at least 13"),
    "not base64": (shot(1, images=["***"]), "images[0]"),
    "not a picture": (shot(1, images=[GOOD_FRAME, "aGVsbG8gd29ybGQ="]), "images[1]"),
    "truncated": (shot(1, images=[GOOD_FRAME[: len(GOOD_FRAME) // 8 * 4]]), "images[0]"),
    "1x1": (shot(1, images=[encode(scene(1, 1, 1), "PNG")]), "16"),
    "200:1": (shot(1, images=[encode(scene(1, 16, 3200), "PNG")]), "20"),
    "end before start": (shot(1, start_time=5.0, end_time=4.0), "end_time"),
    "a list": ([], "object"),
}


@pytest.mark.parametrize(("body", "word"), BAD_SHOTS.values(), ids=BAD_SHOTS)
def test_bad_shot(client: TestClient, body: Any, word: str) -> None:
    import json

    answer = client.post("/analyze", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, word)
    # The same shot in a batch is an error row, not an error of the batch.
    rows = client.post(
        "/analyze_batch", content=json.dumps({"shots": [body]}), headers={"Content-Type": "application/json"}
    )
    assert rows.status_code == 200
    assert rows.json()["results"] == []
    assert word in rows.json()["errors"][0]["detail"]


def assert_problem(answer: Any, status: int, word: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "request_id"}
    assert body["status"] == status
    assert word in body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]


def test_not_json(client: TestClient) -> None:
    assert_problem(client.post("/analyze", content="{", headers={"Content-Type": "application/json"}), 422, "JSON")
    assert_problem(client.post("/analyze", content="{}", headers={"Content-Type": "text/plain"}), 415, "Content-Type")
    assert_problem(client.post("/analyze", content="{}"), 415, "Content-Type")


@pytest.mark.parametrize("count", [0, 11])
def test_batch_size(client: TestClient, count: int) -> None:
    shots = [shot(number, images=["x"]) for number in range(count)]
    assert_problem(client.post("/analyze_batch", json={"shots": shots}), 422, "1 to 10")


def test_batch_of_twins(client: TestClient) -> None:
    assert_problem(client.post("/analyze_batch", json={"shots": [shot(1), shot(2), shot(1)]}), 422, "shots[2].shot_id")


def test_batch_of_another_shape(client: TestClient) -> None:
    assert_problem(client.post("/analyze_batch", json=[shot(1)]), 422, '{"shots": [...]}')
    assert_problem(client.post("/analyze?explain=perhaps", json=shot(1)), 422, "explain")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EngineLoading("the model is being loaded"), 503),
        (EngineLost("the engine stopped"), 503),
        (QueueFull("full", 7), 429),
        (NotANumber("not a number"), 500),
    ],
)
def test_engine_errors(settings: Settings, error: Exception, status: int) -> None:
    def fail(_: ShotPictures) -> None:
        raise error

    engine = FakeEngine(list(settings.attributes), fail)
    with TestClient(create_app(settings, engine), headers=AUTH, client=("127.0.0.1", 5000)) as client:
        answer = client.post("/analyze", json=shot(1))
        assert_problem(answer, status, str(error))
        assert ("retry-after" in answer.headers) == (status != 500)
        rows = client.post("/analyze_batch", json={"shots": [shot(1)]}).json()
        assert rows["errors"][0]["detail"] == str(error)
    assert engine.closed


def test_an_unforeseen_error_tells_nothing(settings: Settings) -> None:
    def fail(_: ShotPictures) -> None:
        raise KeyError("secret")

    app = create_app(settings, FakeEngine(list(settings.attributes), fail))
    with TestClient(app, headers=AUTH, client=("127.0.0.1", 1), raise_server_exceptions=False) as client:
        answer = client.post("/analyze", json=shot(1))
    assert answer.status_code == 500
    assert "secret" not in answer.text


@pytest.mark.parametrize("status", [Status.LOADING, Status.DEGRADED])
def test_health_when_not_healthy(client: TestClient, engine: FakeEngine, status: Status) -> None:
    engine.status = status
    answer = client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (503, status.value)


def test_draining(client: TestClient) -> None:
    client.app.state.draining = True  # type: ignore[attr-defined]
    assert client.get("/health").json()["status"] == "draining"
    assert_problem(client.post("/analyze", json=shot(1)), 503, "stopped")


def test_metrics_count_what_clients_saw(client: TestClient) -> None:
    client.post("/analyze", json=shot(1))
    client.post("/analyze_batch", json={"shots": [shot(1), shot(2, images=["x"])]})
    text = client.get("/metrics").text
    assert 'qwen_shots_total{outcome="ok"} 2.0' in text
    assert 'qwen_shots_total{outcome="invalid-picture"} 1.0' in text
    assert 'qwen_requests_total{route="/analyze",status="200"} 1.0' in text


@pytest.mark.parametrize("count", [1, 64])
def test_any_number_of_attributes(settings: Settings, count: int) -> None:
    names = [f"attribute_{number}" for number in range(count)]
    changed = Settings.model_validate(settings.model_dump() | {"attributes": dict.fromkeys(names, "anything")})
    with TestClient(create_app(changed, FakeEngine(names)), headers=AUTH, client=("127.0.0.1", 1)) as client:
        assert list(client.post("/analyze", json=shot(1)).json()["attributes"]) == names
