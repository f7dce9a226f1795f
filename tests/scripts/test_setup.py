"""setup.sh as a user runs it. The packages are those of the tests: only one test lets it make an environment."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import BUNDLED, PATIENCE_SECONDS, ROOT, broken_model, free_port, server_environment
from tests.hub import Hub, running_hub

QUICK_SECONDS = 15.0  # of processor time, which other work on the machine hardly changes

Setup = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def setup(project: Path, tmp_path: Path) -> Setup:
    def call(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environ = server_environment(free_port()) | {"HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            ["bash", "setup.sh", *options],
            cwd=project,
            env=environ | variables,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_SECONDS,
            check=False,
        )

    return call


@pytest.fixture
def installed(project: Path) -> None:
    """What setup.sh remembers of packages that it has installed."""
    kind = "nvidia-smi >/dev/null 2>&1 && echo -n cuda || echo -n cpu"
    sums = "cat requirements.txt requirements.lock | cksum"
    stamp = subprocess.check_output(["bash", "-c", f"{kind}; echo -n ' '; {sums}"], cwd=project)
    (project / ".venv/.setup-installed").write_bytes(stamp)


def tool(folder: Path, name: str, text: str) -> str:
    """A PATH on which a command of ours stands before the system's."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def children_seconds() -> float:
    """Processor time of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def assert_failed(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    assert done.stderr.count("ERROR: ") == 1, done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.usefixtures("installed")
def test_the_demo_verifies_the_bundled_model_once(setup: Setup, tmp_path: Path) -> None:
    # What macOS's stat says to options of GNU's; the script must not ask it.
    path = tool(tmp_path / "macos", "stat", "echo 'stat: illegal option -- c' >&2; exit 1")
    first = setup("--demo", PATH=path)
    assert first.returncode == 0, first.stderr
    for word in ("Python: 3.", "CUDA: ", f"model: {BUNDLED}", "a film frame on", "ready: ./start_server.sh --demo"):
        assert word in first.stdout
    began = children_seconds()
    second = setup("--demo", PATH=path)
    assert (second.returncode, "verified before" in second.stdout) == (0, True)
    assert children_seconds() - began < QUICK_SECONDS


@pytest.mark.usefixtures("installed")
def test_a_model_is_fetched_and_verified_once(setup: Setup) -> None:
    with running_hub(Hub("studio/shots", ROOT / BUNDLED)) as hub:
        first = setup(QWEN_SERVER__MODEL__NAME=hub.name, HF_ENDPOINT=hub.url)
        assert first.returncode == 0, first.stderr
        assert "a film frame on" in first.stdout
        hub.asked.clear()
        second = setup(QWEN_SERVER__MODEL__NAME=hub.name, HF_ENDPOINT=hub.url)
    assert (second.returncode, "verified before" in second.stdout, hub.asked) == (0, True, [])


@pytest.mark.usefixtures("installed")
def test_a_remote_model_is_left_to_its_endpoints(setup: Setup) -> None:
    done = setup(QWEN_SERVER__MODEL__ENGINE="remote", QWEN_SERVER__MODEL__ENDPOINTS="http://127.0.0.1:1")
    assert done.returncode == 0, done.stderr
    assert "the endpoints have it" in done.stdout
    assert "verifying" not in done.stdout


@pytest.mark.usefixtures("installed")
def test_a_model_that_can_not_be_fetched(setup: Setup) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    assert_failed(setup(QWEN_SERVER__MODEL__NAME="studio/shots", HF_ENDPOINT=nobody), "studio/shots", nobody, "--demo")


@pytest.mark.usefixtures("installed")
def test_a_model_that_does_not_work(setup: Setup, tmp_path: Path) -> None:
    broken = broken_model(tmp_path / "broken")
    assert_failed(setup(QWEN_SERVER__MODEL__NAME=str(broken)), "can't be loaded")


def test_no_python_that_is_new_enough(setup: Setup, tmp_path: Path) -> None:
    old = tmp_path / "tools/old-python"
    path = tool(old.parent, old.name, 'case "$2" in *print*) echo 3.8.10 ;; *) exit 1 ;; esac')
    assert_failed(setup("--demo", PYTHON="old-python", PATH=path), "Python 3.10 or newer", "old-python is 3.8.10")
    assert_failed(setup("--demo", PYTHON="no-such-python"), "None was found")


def test_no_room_for_the_packages(setup: Setup, project: Path, tmp_path: Path) -> None:
    shutil.rmtree(project / ".venv")
    path = tool(tmp_path / "tools", "df", "echo head; echo disk 100 90 10 90% /")
    assert_failed(setup("--demo", PATH=path), "has 10 MB free")


def test_no_package_index(setup: Setup, project: Path) -> None:
    shutil.rmtree(project / ".venv")
    nobody = f"http://127.0.0.1:{free_port()}/simple"
    done = setup("--demo", PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL=nobody, PIP_FIND_LINKS="", PIP_RETRIES="0")
    assert_failed(done, "no connection to the package index")


def test_the_gpu_is_named(setup: Setup, project: Path, tmp_path: Path) -> None:
    shutil.rmtree(project / ".venv")
    tool(tmp_path / "tools", "df", "echo head; echo disk 100 90 5000 90% /")
    path = tool(tmp_path / "tools", "nvidia-smi", "echo 'NVIDIA Example, 81559 MiB, 580.1'")
    done = setup(PATH=path)
    assert "CUDA: 1 GPU(s)" in done.stdout
    assert "NVIDIA Example, 81559 MiB, 580.1" in done.stdout
    assert_failed(done, "has 5000 MB free")  # enough for the CPU's torch, not for CUDA's


def test_help(setup: Setup) -> None:
    said = setup("--help")
    assert (said.returncode, said.stdout.startswith("Usage: ./setup.sh")) == (0, True)
    assert setup("--nonsense").returncode == 2
