"""A small film, a server that answers at once, and the folder of answers that the two make; shared by many tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_shots.client.analysis import analyze
from tests.helpers import KEY
from tests.qwen_shots.client.answering import AnsweringServer
from tests.qwen_shots.client.clips import scenes, tone, write_film

# A film folder's captions may come from any server.
HOSTILE = "</script><script>alert(1)</script> & \"'<img src=x onerror=alert(2)>"
CAPTIONS = {
    1: "A person walks in a dark hallway.",
    2: "A crowd on a street by night, walking.",
    3: "Two faces at a table, one of them in the dark.",
    4: HOSTILE,
    6: "An empty street at dawn.",
    7: "A very long caption: " + "the camera follows a car through the rain, " * 8,
    8: "=1+1",
    9: "Zwei Gesichter im Gegenlicht, 夜.",
}
FAILED = 5


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine shots: three scenes, three times; the index before the pictures."""
    return write_film(
        tmp_path_factory.mktemp("film") / "a.mp4", scenes(30, 30, 24) * 3, sound=tone(440, 10.5), web=True
    )


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    """Answers every shot, the same to the same, until it is told otherwise."""
    with AnsweringServer() as running:
        yield running


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops waits for what is under way, however busy the machine is."""
    monkeypatch.setattr("qwen_shots.client.analysis.GRACE_SECONDS", 60.0)
    monkeypatch.setattr("qwen_shots.client.ahead.CLOSE_SECONDS", 60.0)


@pytest.fixture(scope="session")
def answers(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that film: eight shots have CAPTIONS, one failed. To be read only."""
    folder = tmp_path_factory.mktemp("answers")
    with AnsweringServer() as running:
        running.captions, running.failing = CAPTIONS, {FAILED}
        for _ in analyze(film, running.url, key=KEY, folder=folder):
            pass
    return folder
