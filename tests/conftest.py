"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator

import httpx
import hypothesis
import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from starlette.testclient import TestClient

from server import create_app
from settings import Settings, load_settings
from tests.fakes import FakeEngine
from tests.helpers import (
    AUTH,
    BUNDLED,
    LOCALHOST,
    PATIENCE_SECONDS,
    ROOT,
    free_port,
    running_server,
    server_environment,
)

# The same examples in every run, and no time limit for each: other work on the machine must fail no test.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.load_profile("steady")


# Fixtures that skip a test where a system package is missing, which no Python package could bring.
SYSTEM_FIXTURES = {"browser", "espeak"}


@pytest.hookimpl(tryfirst=True)  # before `-m` picks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what a machine without system packages skips, so that CI can run just that once it has installed them."""
    for item in items:
        if isinstance(item, pytest.Function) and SYSTEM_FIXTURES.intersection(item.fixturenames):
            item.add_marker("system")


def pytest_configure() -> None:
    """Put ffmpeg and ffprobe of a Python package first on the PATH, so that every machine has the same.

    Give the programs that the tests start a SIGINT that ends them; a shell's background job begins without.
    """
    os.environ["PATH"] = f"{ROOT / '.venv/tools'}{os.pathsep}{os.environ['PATH']}"
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def settings() -> Settings:
    """The shipped configuration, on the bundled checkpoint."""
    return load_settings(environ={"QWEN_SERVER__MODEL__NAME": BUNDLED, "QWEN_SERVER__MODEL__DEVICE": "cpu"})


@pytest.fixture(scope="session")
def live_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one real server for the whole session."""
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "server.log"
    with running_server(server_environment(port), port, log) as (url, _):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window. Of a module, not the session: while it runs, nothing else may run an event loop."""
    chromium = shutil.which("chromium") or pytest.skip("needs Debian's package chromium")
    expect.set_options(timeout=1000 * PATIENCE_SECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, timeout=1000 * PATIENCE_SECONDS)
        yield browser
        browser.close()


@pytest.fixture
def espeak() -> None:
    """Skip a test that has sentences spoken where nothing speaks them."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("needs Debian's package espeak-ng")


@pytest.fixture
def live(live_url: str) -> Iterator[httpx.Client]:
    """A client with the key, on the real server."""
    with httpx.Client(base_url=live_url, headers=AUTH, timeout=PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture
def engine(settings: Settings) -> FakeEngine:
    """An engine that can be made to fail."""
    return FakeEngine(list(settings.attributes))


@pytest.fixture
def client(settings: Settings, engine: FakeEngine) -> Iterator[TestClient]:
    """A client with the key, on the fake engine, without a port."""
    with TestClient(
        create_app(settings, engine), base_url=LOCALHOST, headers=AUTH, client=("127.0.0.1", 5000)
    ) as client:
        yield client
