"""start_server.sh and stop_server.sh as a user runs them, in a copy of the project with a port of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers import BUNDLED, ROOT, free_port, server_environment

PARTS = (
    "*.py", "*.sh", "config.yaml", "engines", "qwen_shots", "scripts", "models",
)  # fmt: skip

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for pattern in PARTS:
        for part in ROOT.glob(pattern):
            (tmp_path / part.name).symlink_to(part) if part.is_dir() else shutil.copy(part, tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    # An environment's python finds its packages by where it stands, so it is called, not linked.
    python = tmp_path / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return tmp_path


@pytest.fixture
def run(project: Path, port: int) -> Iterator[Run]:
    def call(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environ = server_environment(port, **settings)
        return subprocess.run(
            ["bash", *words], cwd=project, env=environ, capture_output=True, text=True, timeout=90, check=False
        )

    yield call
    call("stop_server.sh")


def assert_failed(done: subprocess.CompletedProcess[str], word: str, project: Path) -> None:
    assert done.returncode != 0
    assert done.stderr.count("ERROR: ") == 1
    assert word in done.stderr
    assert not (project / ".qwen_server.pid").exists()


def test_start_twice_and_stop_twice(run: Run, port: int) -> None:
    started = run("start_server.sh", "--demo")
    assert (started.returncode, "healthy" in started.stdout) == (0, True), started.stderr
    assert httpx.get(f"http://127.0.0.1:{port}/health").json()["model"] == BUNDLED
    again = run("start_server.sh", "--demo")
    assert (again.returncode, "running already" in again.stdout) == (0, True)
    stopped = run("stop_server.sh")
    assert (stopped.returncode, "stopped" in stopped.stdout) == (0, True)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")
    nothing = run("stop_server.sh")
    assert (nothing.returncode, "no server is running" in nothing.stdout) == (0, True)


def test_a_port_in_use(run: Run, project: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        assert_failed(run("start_server.sh", "--demo"), "server.port", project)


def test_a_broken_configuration(run: Run, project: Path) -> None:
    assert_failed(run("start_server.sh", MODEL__DTYPE="float8"), "model.dtype", project)


def test_a_model_that_is_not_there(run: Run, project: Path) -> None:
    assert_failed(run("start_server.sh", MODEL__NAME="./nowhere"), "./nowhere", project)


def test_a_model_that_breaks_while_it_loads(run: Run, project: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken-model"
    shutil.copytree(ROOT / BUNDLED, broken)
    for shard in broken.glob("*.safetensors"):
        shard.write_bytes(shard.read_bytes()[:1000])
    assert_failed(run("start_server.sh", MODEL__NAME=str(broken)), "can't be loaded", project)


def test_a_process_that_was_not_started_here_is_left_alone(run: Run, project: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (project / ".qwen_server.pid").write_text(f"{stranger.pid}\nMon Jan  1 00:00:00 2001\n")
        assert run("stop_server.sh").returncode == 0
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("script", ["start_server.sh", "stop_server.sh"])
def test_help(run: Run, script: str) -> None:
    assert (run(script, "--help").returncode, run(script, "--nonsense").returncode) == (0, 2)
