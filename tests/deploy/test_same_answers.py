"""The plain server's own tests of its answers, here against the server on Ray with the bundled checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from engines.local import LocalEngine
from settings import Settings
from tests.deploy import cluster
from tests.helpers import AUTH, shot
from tests.test_bad_input import *  # noqa: F403
from tests.test_readme import test_the_answer_is_the_one_shown as test_the_readme  # noqa: F401
from tests.test_server import (  # noqa: F401
    test_evidence_recomputes_the_answer,
    test_health,
    test_one_shot,
    test_shot_without_sound,
)

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def live_url(cluster_url: str, settings: Settings) -> str:
    """The address of the server on Ray."""
    cluster.deploy(cluster_url, settings, LocalEngine)
    return cluster_url


@pytest.fixture
def client(live_url: str) -> Iterator[httpx.Client]:
    """A client with the key."""
    with httpx.Client(base_url=live_url, headers=AUTH, timeout=60) as client:
        yield client


def test_metrics_count_what_clients_saw_here(client: httpx.Client) -> None:
    line = 'qwen_shots_total{outcome="ok"} '

    def counted() -> float:
        return sum(
            float(text.removeprefix(line)) for text in client.get("/metrics").text.splitlines() if text.startswith(line)
        )

    before = counted()
    assert client.post("/analyze", json=shot(1)).status_code == 200
    assert counted() == before + 1
