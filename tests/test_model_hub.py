"""Downloads from a hub on this machine, with huggingface_hub itself: whole, cut, stopped and refused."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from model_hub import _reason
from tests.helpers import BUNDLED, PATIENCE_SECONDS, ROOT, free_port
from tests.hub import Hub, running_hub
from tests.scripts.processes import wait_for

NAME = "studio/shots"
MIB = 1024**2

Fetch = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled checkpoint with its weights in two files, of which the second has more than 10 MiB.

    huggingface_hub writes pieces of 10 MiB, so a smaller file has nothing to resume.
    """
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("repository")
    tensors: dict[str, torch.Tensor] = {}
    for file in (ROOT / BUNDLED).iterdir():
        if file.suffix == ".safetensors":
            tensors |= load_file(file)
        elif not file.name.endswith(".index.json"):
            shutil.copy(file, folder)
    first = next(iter(tensors))
    save_file({first: tensors.pop(first)}, folder / "model-00001-of-00002.safetensors")
    save_file(tensors, folder / "model-00002-of-00002.safetensors")
    names = {first: "model-00001-of-00002.safetensors"} | dict.fromkeys(tensors, "model-00002-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert (folder / "model-00002-of-00002.safetensors").stat().st_size > 12 * MIB
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    with running_hub(Hub(NAME, repository)) as hub:
        yield hub


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path) -> Fetch:
    def call(name: str = NAME, url: str | None = None) -> subprocess.Popen[str]:
        environ = {
            **os.environ,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_ENDPOINT": url or hub.url,
            "QWEN_SERVER__MODEL__NAME": name,
        }
        # A terminal of its own: without one there is no progress bar.
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "model_loader.py"], cwd=ROOT, env=environ, stdout=theirs, stderr=theirs, text=True
        )
        os.close(theirs)
        process.stdout = os.fdopen(ours, errors="replace")
        return process

    return call


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and everything that was said."""
    said = ""
    assert process.stdout
    try:
        while piece := process.stdout.read(1):
            said += piece
    except OSError as error:  # Linux' way to say that the terminal's other end is closed
        assert error.errno == errno.EIO
    process.stdout.close()
    return process.wait(timeout=PATIENCE_SECONDS), said


def test_a_download_shows_a_bar_and_is_not_done_twice(fetch: Fetch, hub: Hub) -> None:
    code, said = outcome(fetch())
    assert (code, f"model: {NAME}, in " in said) == (0, True), said
    assert "100%|" in said
    hub.asked.clear()
    code, said = outcome(fetch(url=f"http://127.0.0.1:{free_port()}"))  # nobody listens there: nothing is asked
    assert (code, hub.asked) == (0, []), said


def test_for_the_remote_engine_the_picture_format_alone_is_fetched(
    fetch: Fetch, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN_SERVER__MODEL__ENGINE", "remote")
    monkeypatch.setenv("QWEN_SERVER__MODEL__ENDPOINTS", "http://127.0.0.1:1")
    hub.refusal = (401, "GatedRepo", "file")
    code, said = outcome(fetch())
    assert code == 1
    assert "preprocessor_config.json" in said
    assert "gated" in said
    hub.refusal = None
    code, said = outcome(fetch())
    assert (code, f"model: {NAME}, in " in said) == (0, True), said
    assert {file for file, _ in hub.asked} == {"preprocessor_config.json"}
    hub.asked.clear()
    code, said = outcome(fetch(url=f"http://127.0.0.1:{free_port()}"))
    assert (code, hub.asked) == (0, []), said


def test_a_cut_connection_goes_on_where_it_was_cut(fetch: Fetch, hub: Hub) -> None:
    hub.cut_after = 11 * MIB
    code, said = outcome(fetch())
    assert code == 0, said
    assert ("model-00002-of-00002.safetensors", f"bytes={10 * MIB}-") in hub.asked


def test_a_stopped_download_keeps_the_files_that_are_whole(fetch: Fetch, hub: Hub, tmp_path: Path) -> None:
    hub.stall_after = 11 * MIB
    process = fetch()
    assert hub.stalled.wait(PATIENCE_SECONDS)
    small = "model-00001-of-00002.safetensors"
    wait_for(lambda: [file for file in tmp_path.rglob(f"snapshots/*/{small}") if file.exists()])
    process.kill()
    outcome(process)
    hub.asked.clear()
    code, said = outcome(fetch())
    assert code == 0, said
    weights = [asked for asked in hub.asked if asked[0].endswith(".safetensors")]
    assert weights == [("model-00002-of-00002.safetensors", None)]


def test_a_file_that_was_cut_off_is_fetched_again(fetch: Fetch, hub: Hub, tmp_path: Path) -> None:
    assert outcome(fetch())[0] == 0
    (weights,) = tmp_path.rglob("snapshots/*/model-00002-of-00002.safetensors")
    size = weights.stat().st_size
    os.truncate(weights, size // 2)
    code, said = outcome(fetch())
    assert (code, weights.stat().st_size) == (0, size), said


def assert_says(said: str, hub: Hub, *words: str) -> None:
    """One message: which model, from where, why, and how else."""
    plain = " ".join(said.split())
    assert plain.count("ERROR: ") == 1
    assert "Traceback" not in plain
    for word in (NAME, hub.url, f"hf download {NAME} --local-dir", "--demo", *words):
        assert word in plain, plain


@pytest.mark.parametrize(
    ("status", "code", "where", "word"),
    [
        (404, "RepoNotFound", "api", "no such model"),
        (401, "RepoNotFound", "api", "no such model"),
        (401, "GatedRepo", "file", "it is gated"),
        (403, "GatedRepo", "api", "it is gated"),
        (500, "", "api", "the hub answered 500"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(
    fetch: Fetch, hub: Hub, status: int, code: str, where: str, word: str
) -> None:
    hub.refusal = (status, code, where)
    done, said = outcome(fetch())
    assert done == 1
    assert_says(said, hub, word)


def test_no_network(fetch: Fetch, hub: Hub) -> None:
    hub.url = f"http://127.0.0.1:{free_port()}"
    code, said = outcome(fetch())
    assert code == 1
    assert_says(said, hub, "no connection")


def test_offline_by_choice(fetch: Fetch, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, said = outcome(fetch())
    assert code == 1
    assert_says(said, hub, "Unset HF_HUB_OFFLINE")
    assert hub.asked == []


def test_no_room(fetch: Fetch, hub: Hub) -> None:
    hub.claimed_size = 10**15
    code, said = outcome(fetch())
    assert code == 1
    assert_says(said, hub, "the disk is full: it needs 2000000.0 GB more", "HF_HOME")
    assert hub.asked == []


def test_weights_that_nobody_could_use_are_not_fetched(
    fetch: Fetch, hub: Hub, repository: Path, tmp_path: Path
) -> None:
    hub.folder = Path(shutil.copytree(repository, tmp_path / "quantized"))
    config = json.loads((repository / "config.json").read_text())
    (hub.folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "awq"}}))
    code, said = outcome(fetch())
    assert code == 1
    assert f"ERROR: model.name: {NAME} is quantized (awq); the models served are" in " ".join(said.split())
    assert [name for name, _ in hub.asked] == ["config.json"]


def test_a_name_that_is_none(fetch: Fetch) -> None:
    code, said = outcome(fetch(name="no-such name!"))
    assert (code, "that is no name of a model" in " ".join(said.split())) == (1, True), said


def test_a_disk_that_fills_up_in_the_middle() -> None:
    assert "the disk is full. Make room" in _reason(NAME, OSError(errno.ENOSPC, "No space left on device"))
