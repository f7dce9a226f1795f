"""A copy of the project to run the shell scripts in, with a port of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers import PATIENCE_SECONDS, ROOT, free_port, server_environment
from tests.scripts.processes import wait_until_nothing_runs

CODE = ("*.py", "engines", "serving", "qwen_shots", "scripts")
PARTS = (*CODE, "*.sh", "config.yaml", "requirements*", "samples", "models")

Run = Callable[..., subprocess.CompletedProcess[str]]

RUN_SECONDS = 2 * PATIENCE_SECONDS


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / ".venv/bin").mkdir(parents=True)
    for pattern in PARTS:
        for part in ROOT.glob(pattern):
            (folder / part.name).symlink_to(part) if part.is_dir() else shutil.copy(part, folder)
    # An environment's python finds its packages by where it stands, so it is called, not linked.
    python = folder / ".venv/bin/python"
    # It never runs pip: that would change the environment which the tests themselves run in.
    python.write_text(f'#!/bin/sh\n[ "$2" != pip ] || exit 1\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return folder


@pytest.fixture
def run(project: Path, port: int) -> Iterator[Run]:
    def call(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environ = server_environment(port, **settings)
        return subprocess.run(
            ["bash", *words], cwd=project, env=environ, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )

    yield call
    call("stop_server.sh")
    wait_until_nothing_runs(project)
