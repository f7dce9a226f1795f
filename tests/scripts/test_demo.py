"""`make demo`'s script as a user runs it: it answers, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from qwen_shots.client.shots import Shot
from qwen_shots.schemas import Analysis, BatchError
from scripts import demo
from tests.helpers import BUNDLED, PATIENCE_SECONDS, ROOT, free_port, server_environment
from tests.qwen_shots.client.clips import scenes, tone, write_film
from tests.scripts.processes import command_line, is_wanted

SCORES = ("suspense", "darkness", "ambiguity", "emotional", "tension", "intensity", "motion")


class Demo:
    """A run of the script, whose processes are known by a mark in their environment."""

    def __init__(self, *words: str, **settings: str) -> None:
        self.mark = f"DEMO_MARK={uuid.uuid4()}"
        name, value = self.mark.split("=")
        environ = server_environment(free_port(), **settings)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scripts.demo", *words],
            cwd=ROOT,
            env=environ | {name: value, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, words: str) -> None:
        """Read the output up to a line with these words."""
        assert self.process.stdout is not None
        assert any(words in line for line in self.process.stdout), f"it never said {words!r}"

    def finish(self) -> tuple[int, str]:
        text, _ = self.process.communicate(timeout=2 * PATIENCE_SECONDS)
        return self.process.returncode, text

    def alive(self) -> list[int]:
        """Its processes that run, servers and engines among them; not Python's helpers, which end a moment later."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marked = self.mark.encode() in (folder / "environ").read_bytes().split(b"\0")
                marked &= is_wanted(command_line(folder))
            except OSError:
                continue
            if marked:
                found.append(int(folder.name))
        return found


@pytest.fixture
def film(tmp_path: Path) -> str:
    return str(write_film(tmp_path / "a.mp4", scenes(30, 30), sound=tone(440, 2.5)))


@pytest.fixture
def left_behind() -> Iterator[list[Demo]]:
    """Demos of a test; whatever still runs of them is an error, and ended."""
    demos: list[Demo] = []
    yield demos
    alive = [pid for each in demos for pid in each.alive()]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert not alive


def test_a_film_from_file_to_table(film: str, left_behind: list[Demo]) -> None:
    run = Demo(film)
    left_behind.append(run)
    code, text = run.finish()
    assert code == 0, text
    assert BUNDLED in text
    assert "small demo model" in text
    assert all(name in text for name in SCORES)
    rows = [line.split() for line in text.splitlines() if line.count(":") == 2 and line.split()[0] in {"1", "2"}]
    assert [row[1:3] for row in rows] == [["0:00.0", "0:01.2"], ["0:01.2", "0:02.5"]]
    assert all(0 <= float(score) <= 1 for row in rows for score in row[-6:])
    assert text.rstrip().endswith("stopping the server")
    assert run.alive() == []


@pytest.mark.parametrize("words", ["starting a server", "the server is healthy"])
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_early(words: str, number: signal.Signals, expected: int, left_behind: list[Demo]) -> None:
    run = Demo()
    left_behind.append(run)
    run.until(words)
    time.sleep(0.3)
    run.process.send_signal(number)
    code, text = run.finish()
    assert (code, "Traceback" in text) == (expected, False), text
    assert run.alive() == []


def test_no_film(tmp_path: Path, left_behind: list[Demo]) -> None:
    (tmp_path / "words.mp4").write_text("no film\n" * 100)
    run = Demo(str(tmp_path / "words.mp4"))
    left_behind.append(run)
    code, text = run.finish()
    assert (code, "ERROR: words.mp4 is not a film" in text) == (1, True), text


def test_a_model_that_is_not_there(left_behind: list[Demo]) -> None:
    run = Demo("--model", "./nowhere")
    left_behind.append(run)
    code, text = run.finish()
    assert code == 1
    assert "ERROR: the server ended" in text
    assert "./nowhere" in text
    assert "small demo model" not in text


def test_a_wrong_configuration(left_behind: list[Demo]) -> None:
    run = Demo(MODEL__DTYPE="float8")
    left_behind.append(run)
    code, text = run.finish()
    assert (code, "model.dtype" in text) == (1, True), text


def test_a_port_in_use_is_left_to_its_owner(left_behind: list[Demo]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        run = Demo("--port", str(owner.getsockname()[1]))
        left_behind.append(run)
        code, text = run.finish()
        assert (code, "can't be used" in text) == (1, True), text
        owner.settimeout(0.1)
        with pytest.raises(TimeoutError):
            owner.accept()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits(width: int) -> None:
    scores = dict.fromkeys(("suspense", "emotional_tension"), 0.5) | {"motion": 0.987}
    analysis = Analysis(shot_id=1, caption="Somebody walks through a long dark hallway and stops", attributes=scores)
    error = BatchError(index=1, shot_id=2, type="urn:x", title="The shot failed", detail="and why")
    shots = [Shot(0, 3661.06), Shot(3661.06, 3700)]
    console = Console(width=width, record=True)
    console.print(demo._table(shots, [analysis, error], list(scores), wide=width > 100))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert all(word in text for word in ("1:01:01.1", "Somebody", "0.50", "0.99", "The shot failed", "-"))
