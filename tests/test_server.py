"""The routes, on a real server and on a fake engine where a fault is needed."""

from __future__ import annotations

import subprocess
import sys
import time

import httpx
import pytest
from starlette.testclient import TestClient

from engines.base import Status
from qwen_shots.fusion import recompute
from qwen_shots.schemas import Evidence
from server import create_app
from settings import Settings
from tests.fakes import FakeEngine
from tests.helpers import AUTH, BUNDLED, LOCALHOST, ROOT, shot
from tests.scripts.processes import wait_for


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
    with TestClient(
        create_app(changed, FakeEngine(names)), base_url=LOCALHOST, headers=AUTH, client=("127.0.0.1", 1)
    ) as client:
        assert list(client.post("/analyze", json=shot(1)).json()["attributes"]) == names


def test_the_log_says_healthy_when_health_does(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serving.loading.POLL_SECONDS", 0.01)
    caplog.set_level("INFO")
    engine = FakeEngine(list(settings.attributes))
    engine.status = Status.DEGRADED  # one GPU is ready, the others load
    with TestClient(create_app(settings, engine), base_url=LOCALHOST, headers=AUTH, client=("127.0.0.1", 1)):
        time.sleep(0.2)
        assert "healthy" not in caplog.text
        engine.status = Status.HEALTHY
        wait_for(lambda: "healthy: fake on cpu" in caplog.text)


MAIN = """
import multiprocessing.spawn, runpy
from serving import process
process.main = lambda _: print(*multiprocessing.spawn.get_preparation_data("engine"))
runpy.run_path("server.py", run_name="__main__")
"""


def test_engines_do_not_import_the_server() -> None:
    ran = subprocess.run([sys.executable, "-c", MAIN], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "sys_path" in ran.stdout
    assert "init_main" not in ran.stdout
