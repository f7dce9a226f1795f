"""/docs and /redoc in a real browser, with the internet out of reach: a film studio's operator tries a shot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from settings import Settings
from tests.helpers import KEY, PATIENCE_SECONDS


@dataclass
class Seen:
    """What a page did: requests that would leave this machine, and complaints on the console."""

    outside: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.route("**/*", self._only_this_machine)
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _only_this_machine(self, route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.hostname == "127.0.0.1":
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def page(browser: Browser, seen: Seen) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(1000 * PATIENCE_SECONDS)
    seen.watch(page)
    yield page
    page.close()


def authorize(page: Page, key: str) -> None:
    page.locator(".btn.authorize").first.click()
    page.locator(".auth-container input").fill(key)
    page.locator(".auth-btn-wrapper .authorize").click()
    page.locator(".auth-btn-wrapper .btn-done").click()


def try_example(page: Page) -> tuple[str, str]:
    """Send the worked example of POST /analyze as it stands there; the status and the body that the page shows."""
    route = page.locator(".opblock-post", has=page.locator('[data-path="/analyze"]'))
    route.locator(".opblock-summary-control").click()
    route.get_by_role("button", name="Try it out").click()
    route.get_by_role("button", name="Execute").click()
    answer = route.locator(".live-responses-table tbody")
    return answer.locator(".response-col_status").first.inner_text(), answer.locator("pre code").first.inner_text()


def test_try_it_out_with_the_key(live_url: str, page: Page, seen: Seen, settings: Settings) -> None:
    page.goto(f"{live_url}/docs")
    authorize(page, KEY)
    status, body = try_example(page)
    assert status.startswith("200")
    assert list(json.loads(body)["attributes"]) == list(settings.attributes)
    assert len(settings.attributes) == 6
    assert (seen.outside, seen.complaints) == ([], [])


def test_try_it_out_without_the_key(live_url: str, page: Page, seen: Seen) -> None:
    page.goto(f"{live_url}/docs")
    status, body = try_example(page)
    assert status.startswith("401")
    assert "Authorization" in json.loads(body)["detail"]
    assert seen.outside == []


def test_the_reference(live_url: str, page: Page, seen: Seen) -> None:
    page.goto(f"{live_url}/redoc")
    page.get_by_role("heading", name="Analyse one shot").wait_for()
    page.wait_for_load_state("networkidle")
    expect(page.get_by_text("API docs by Redocly")).to_be_visible()
    assert (seen.outside, seen.complaints) == ([], [])
