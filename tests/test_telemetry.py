"""The counts equal what clients saw, and the log tells each request once, without keys and pictures."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from engines.base import ShotPictures
from engines.replica import Replica
from engines.watchdog import Beat
from logs import JsonFormatter, log_to_terminal
from problems import TYPE_PREFIX
from qwen_shots.errors import EngineLost, NotANumber
from server import create_app
from settings import Settings
from telemetry import Metrics
from tests.engines import faulty
from tests.engines.faulty import Plan
from tests.fakes import FakeEngine
from tests.helpers import AUTH, KEY, LOCALHOST, shot

HERE = ("127.0.0.1", 5000)
Counts = dict[tuple[str, ...], float]


def counted(client: TestClient, name: str) -> Counts:
    """A metric's samples by the values of their labels."""
    text = client.get("/metrics", headers=AUTH).text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {tuple(sample.labels.values()): sample.value for sample in samples if sample.name == name}


def test_counts_equal_what_clients_saw(settings: Settings) -> None:
    chance = random.Random(1)
    faults = [None, None, None, EngineLost("lost"), NotANumber("not a number"), KeyError("unforeseen")]

    def fail(_: ShotPictures) -> None:
        if fault := chance.choice(faults):
            raise fault

    requests, shots, errors = Counter[tuple[str, ...]](), Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    bad = shot(3, images=["x"])
    bodies = [
        ("/analyze", shot(1), AUTH), ("/analyze", bad, AUTH), ("/analyze", shot(1), {}), ("/analyze", [], AUTH),
        ("/analyze_batch", {"shots": [shot(1), shot(2), bad]}, AUTH), ("/analyze_batch", {"shots": []}, AUTH),
        ("/nowhere", {}, AUTH),
    ]  # fmt: skip
    engine = FakeEngine(list(settings.attributes), fail)
    with TestClient(create_app(settings, engine), base_url=LOCALHOST, client=HERE) as client:
        for _ in range(60):
            path, body, headers = chance.choice(bodies)
            answer = client.post(path, json=body, headers=headers)
            told = answer.json()
            # What is turned away at the door never gets as far as a route.
            route = "other" if answer.status_code in (401, 404) else path
            requests[(route, str(answer.status_code))] += 1
            slug = told["type"].removeprefix(TYPE_PREFIX) if answer.status_code != 200 else None
            if slug:
                errors[(slug,)] += 1
            if path == "/analyze" and answer.status_code != 401:
                shots[(slug or "ok",)] += 1
            shots[("ok",)] += len(told.get("results", ()))
            for row in told.get("errors", ()):
                shots[(row["type"].removeprefix(TYPE_PREFIX),)] += 1
        assert counted(client, "qwen_shots_total") == {k: v for k, v in shots.items() if v}
        assert counted(client, "qwen_errors_total") == {k: v for k, v in errors.items() if v}
        seen = {k: v for k, v in counted(client, "qwen_requests_total").items() if k[0] != "/metrics"}
        assert seen == dict(requests)
        timed = counted(client, "qwen_request_seconds_count")
    assert {status for _, status in requests} == {"200", "401", "404", "422", "500", "503"}
    for route in {route for route, _ in requests}:
        assert timed[(route,)] == sum(count for (path, _), count in requests.items() if path == route)


@pytest.fixture
def on_processes(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[TestClient]:
    """A client of a server whose engine is a real process without a model; its eighth look ends it.

    That is the last of two batches of four: a shot that came while there is no engine would be refused.
    """
    plan = Plan("die", tmp_path / "calls", frozenset({7}), batch_tokens=9)
    monkeypatch.setattr("engines.replica.PROBE_SECONDS", 600)  # a probe is a look too
    monkeypatch.setattr("engines.worker.main", partial(faulty.main, plan))
    monkeypatch.setattr("engines.local.FIRST_RESTART_SECONDS", 0.05)
    with TestClient(create_app(settings), base_url=LOCALHOST, client=HERE, headers=AUTH) as client:
        while client.get("/health").status_code != 200:
            time.sleep(0.02)
        yield client


def test_batches_tokens_and_stages_are_counted(on_processes: TestClient) -> None:
    client = on_processes
    for _ in range(2):
        assert client.post("/analyze_batch", json={"shots": [shot(n) for n in range(4)]}).status_code == 200
    answered = counted(client, "qwen_shots_total")[("ok",)]
    assert answered == 8
    assert counted(client, "qwen_batch_shots_sum") == {(): 8}
    batches = counted(client, "qwen_batch_shots_count")[()]
    stages = counted(client, "qwen_stage_seconds_count")
    tokens = 8 * 3 * 15  # key frames of 72 x 128 pixels are 3 x 5 tokens
    assert counted(client, "qwen_tokens_total") == {(): tokens}
    assert counted(client, "qwen_engines_lost_total") == {(): 1}
    assert stages[("look",)] == batches
    assert stages[("decode",)] == stages[("answer",)] == 8
    assert stages[("wait",)] == 9  # the shot of the engine that died waited twice
    assert stages[("receive",)] == stages[("parse",)] == 2
    assert counted(client, "process_resident_memory_bytes")[()] > 0


def test_gpu_memory_is_what_an_engine_told_last(settings: Settings) -> None:
    metrics = Metrics()

    async def beat() -> None:
        replica = Replica(settings, 3, metrics)
        for held in (None, 10, 7 * 2**30):
            replica._on_message(Beat(1.0, 1, held))

    asyncio.run(beat())
    assert metrics.registry.get_sample_value("qwen_gpu_memory_bytes", {"engine": "3"}) == 7 * 2**30


def test_json_lines_tell_each_request_once_and_no_secret(
    client: TestClient, caplog: pytest.LogCaptureFixture, engine: FakeEngine
) -> None:
    caplog.set_level(logging.DEBUG)
    bad = shot(2, images=["x"])
    answers = [
        client.post("/analyze_batch", json={"shots": [shot(1), bad]}),
        client.post("/analyze", json=bad),
        client.post("/analyze", json=shot(1), headers={"Authorization": f"Bearer {KEY}-wrong"}),
        client.get("/health"),
    ]
    lines = [JsonFormatter().format(record) for record in caplog.records]
    told = {line["request_id"]: line for line in map(json.loads, lines) if "request_id" in line}
    assert len(told) == len(answers)
    batch, alone, refused, health = (told[answer.headers["x-request-id"]] for answer in answers)
    assert (batch["status"], batch["shots"], batch["error"]) == (200, {"ok": 1, "invalid-picture": 1}, None)
    assert set(batch["stages_ms"]) == {"receive", "parse", "decode", "answer"}
    assert batch["ms"] >= max(batch["stages_ms"].values())
    assert (alone["status"], alone["error"], alone["shots"]) == (422, "invalid-picture", {"invalid-picture": 1})
    assert (refused["status"], refused["error"], refused["route"]) == (401, "unauthorized", "other")
    assert (health["level"], health["route"]) == ("debug", "/health")
    text = "\n".join([*lines, caplog.text])
    assert KEY not in text
    assert shot(1)["images"][0][:40] not in text


def test_a_line_for_people(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    answer = client.post("/analyze", json=shot(1, images=["x"]))
    line = caplog.records[-1].getMessage()
    assert line.startswith("POST /analyze 422 invalid-picture ")
    assert line.endswith(f" shots: 1 invalid-picture id={answer.headers['x-request-id']}")


def test_json_lines_hold_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    handlers = logging.root.handlers[:]
    try:
        log_to_terminal("json")
        try:
            raise ValueError("sesame")
        except ValueError:
            logging.getLogger("there").exception("it failed: %s", "hear\nhear")
    finally:
        logging.root.handlers[:] = handlers
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["logger"], line["message"]) == ("error", "there", "it failed: hear\nhear")
    assert "ValueError: sesame" in line["exception"]
    assert sys.exc_info() == (None, None, None)
