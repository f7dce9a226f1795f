"""What /docs, /redoc and /openapi.json say. A real browser reads them in test_docs_page.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from engines.base import ShotPictures
from qwen_shots.errors import NotANumber, QueueFull
from qwen_shots.schemas import MAX_ID_LENGTH, MAX_INTEGER_ID
from security import TIMED_OUT
from server import create_app
from settings import Settings
from tests.fakes import FakeEngine
from tests.helpers import AUTH, LOCALHOST, shot


def test_openapi_describes_the_body_and_the_key(client: TestClient) -> None:
    text = client.get("/openapi.json").json()
    scheme = text["components"]["securitySchemes"]["bearer"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    body = text["paths"]["/analyze"]["post"]["requestBody"]["content"]["application/json"]
    assert client.post("/analyze", json=body["example"]).status_code == 200
    for reference in find_references(text):
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in text["components"][kind]


def find_references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            yield from find_references(value)
    elif isinstance(node, list):
        for value in node:
            yield from find_references(value)


def test_openapi_tells_the_bounds_of_an_id(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("Shot", "Analysis"):
        number, text = schemas[name]["properties"]["shot_id"]["anyOf"]
        assert number == {"type": "integer", "minimum": -MAX_INTEGER_ID, "maximum": MAX_INTEGER_ID}
        assert text["maxLength"] == MAX_ID_LENGTH


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_pages_load_from_here_alone(client: TestClient, page: str) -> None:
    html = client.get(page).text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert addresses
    for address in addresses:
        assert address.startswith("/")
        assert client.get(address).status_code == 200


def test_the_pages_forbid_the_browser_to_ask_others(client: TestClient) -> None:
    for page in ("/docs", "/redoc"):
        assert client.get(page).headers["content-security-policy"].startswith("default-src 'self';")
    assert "redoc.ly/" not in client.get("/static/redoc.standalone.js").text


def problems_in(client: TestClient) -> dict[str, Any]:
    responses = client.get("/openapi.json").json()["paths"]["/analyze"]["post"]["responses"]
    return {
        status: response["content"]["application/problem+json"]["example"]
        for status, response in responses.items()
        if status != "200"
    }


def test_the_examples_of_problems_are_what_the_server_says(client: TestClient, settings: Settings) -> None:
    json = AUTH | {"Content-Type": "application/json"}
    many = shot(1) | {"images": [""] * 11}
    said = [
        client.post("/analyze", json=shot(1), headers={"Authorization": "Bearer wrong"}),
        client.post("/analyze", content=b" " * (64 * 2**20 + 1), headers=json),
        client.post("/analyze", content="{}"),
        client.post("/analyze", json=many),
    ]
    examples = problems_in(client)
    for error in (QueueFull("full", 7), NotANumber("no number")):

        def fail(_: ShotPictures, error: Exception = error) -> None:
            raise error

        app = create_app(settings, FakeEngine(list(settings.attributes), fail))
        with TestClient(app, base_url=LOCALHOST, headers=AUTH, client=("127.0.0.1", 5000)) as broken:
            said.append(broken.post("/analyze", json=shot(1)))
    slow = str(TIMED_OUT)  # tests/test_security.py holds that one against the server
    assert {str(answer.status_code) for answer in said} == set(examples) - {slow}
    for answer in said:
        body, example = answer.json(), examples[str(answer.status_code)]
        assert (body["type"], body["title"], body["status"]) == (example["type"], example["title"], example["status"])
        if answer.status_code < 500:
            assert body["detail"] == example["detail"]
