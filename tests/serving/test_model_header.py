"""Every answer says which model the server runs, and any change of what makes the scores is another one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from engines.base import EngineInfo
from serving.model_header import MODEL_HEADER, model_id
from settings import Settings
from tests.fakes import FakeEngine
from tests.helpers import AUTH, BUNDLED, shot

INFO = EngineInfo(BUNDLED, "cpu", weights="a hash")


def test_every_answer_bears_it(live: httpx.Client) -> None:
    answers = [
        live.post("/analyze", json=shot(1)),
        live.post("/analyze_batch", json={"shots": [shot(1), shot(2, images=["x"])]}),
        live.get("/health"),
        live.post("/analyze", json={}),
        live.post("/analyze", json=shot(1), headers={"Authorization": "Bearer wrong"}),
        live.get("/nowhere"),
        live.get("/openapi.json"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 422, 401, 404, 200]
    (value,) = {answer.headers[MODEL_HEADER] for answer in answers}
    assert re.fullmatch(rf"{re.escape(BUNDLED)}@[0-9a-f]{{16}}", value)


def test_none_is_made_up_before_the_weights_are_known(client: TestClient, engine: FakeEngine) -> None:
    assert MODEL_HEADER not in client.get("/health").headers
    engine.info = replace(engine.info, weights="a hash")
    assert client.get("/health").headers[MODEL_HEADER].startswith("fake@")


@pytest.mark.parametrize("change", ["weights", "attributes", "scoring"])
def test_what_makes_the_scores_is_in_it(settings: Settings, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = model_id(INFO, settings)
    info = INFO
    if change == "weights":
        info = replace(INFO, weights="another")
    if change == "attributes":
        changed: Any = settings.model_dump() | {"attributes": settings.attributes | {"dread": "how dreadful it is"}}
        settings = Settings.model_validate(changed)
    if change == "scoring":
        monkeypatch.setattr("serving.model_header.SCORING_VERSION", 1_000)
    assert model_id(info, settings) != known


def test_what_makes_no_score_is_not_in_it(settings: Settings) -> None:
    assert model_id(replace(INFO, device="cuda", gpu_count=2), settings) == model_id(INFO, settings)
    moved = model_id(replace(INFO, model="/elsewhere"), settings)
    assert moved is not None
    assert moved.rpartition("@")[2] == (model_id(INFO, settings) or "").rpartition("@")[2]


def test_a_name_that_no_header_can_hold(client: TestClient, engine: FakeEngine) -> None:
    engine.info = replace(engine.info, model="/modèles/a\r\nb", weights="a hash")
    value = client.get("/health", headers=AUTH).headers[MODEL_HEADER]
    assert value.rpartition("@")[0] == "/mod%C3%A8les/a%0D%0Ab"


def test_it_is_in_the_openapi_text(client: TestClient) -> None:
    text = client.get("/openapi.json").json()
    for operations in text["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                assert response["headers"][MODEL_HEADER] == {"$ref": f"#/components/headers/{MODEL_HEADER}"}
    assert "fingerprint" in text["components"]["headers"][MODEL_HEADER]["description"]
