"""The first page leads on, and every link of it leads somewhere."""

from __future__ import annotations

import re
from typing import Any

from starlette.testclient import TestClient

from tests.helpers import ROOT


def test_the_first_page_needs_no_key_and_links_on(client: TestClient) -> None:
    page = client.get("/", headers={"Authorization": ""})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r'href="([^"]+)"', page.text)
    assert {"/docs", "/README.md"} <= set(links)
    assert {link: client.get(link, headers={"Authorization": ""}).status_code for link in links} == dict.fromkeys(
        links, 200
    )


def test_the_readme(client: TestClient) -> None:
    assert client.get("/README.md").text == (ROOT / "README.md").read_text(encoding="utf-8")


def test_head_is_answered_where_get_is(client: TestClient) -> None:
    app: Any = client.app
    paths = {route.path for route in app.routes if "GET" in (getattr(route, "methods", None) or ())}
    assert {"/", "/README.md", "/docs", "/redoc", "/openapi.json", "/health", "/metrics"} <= paths
    for path in paths:
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.headers["content-type"]) == (200, got.headers["content-type"])
        assert head.content == b""
