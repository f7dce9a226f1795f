"""Pictures, shots and servers for the tests."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from engines.base import ShotReading

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).parent.parent
BUNDLED = "models/qwen2-vl-film-tiny"
# Scales all outputs of the bundled checkpoint, whose output matrix is its input matrix.
LAST_NORM = "model.norm.weight"
KEY = "helloagorevski"
AUTH = {"Authorization": f"Bearer {KEY}"}
# Starlette's client calls the server testserver, and the default key is for this machine's own names.
LOCALHOST = "http://localhost"
# Patience with what must come in the end; a machine that is busy with other work is slow.
PATIENCE_SECONDS = 120.0

# Between two ways of asking the same in float32.
TOLERANCE = 1e-4


def scene(seed: int, height: int = 72, width: int = 128) -> NDArray[np.uint8]:
    """A soft, coloured picture that differs from seed to seed."""
    small = np.random.default_rng(seed).integers(0, 255, (5, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def damaged(folder: Path, damage: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    """A copy of the bundled checkpoint in `folder` with its weights changed: name and weights to new weights."""
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(ROOT / BUNDLED, folder))
    for file in copy.glob("*.safetensors"):
        save_file({name: damage(name, weights) for name, weights in load_file(file).items()}, file, {"format": "pt"})
    return copy


def broken_model(folder: Path) -> Path:
    """A copy of the bundled checkpoint in `folder` that is whole, of a served family, and can't be loaded."""
    copy = Path(shutil.copytree(ROOT / BUNDLED, folder))
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = "seven"
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def run_interpreted(*tests: Path) -> None:
    """Run tests of kernels in Triton's interpreter, in a process of their own: it decides so when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, tests)]
    ran = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout


def encode(picture: NDArray[np.uint8], kind: str = "JPEG") -> str:
    """A picture as it goes over the wire."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def shot(shot_id: int | str = 1, **changes: Any) -> dict[str, Any]:
    """A good shot of five frames, with what is changed about it."""
    seed = zlib.crc32(str(shot_id).encode()) % 1000  # not hash(): that of a text differs from run to run
    good = {
        "shot_id": shot_id,
        "images": [encode(scene(seed + frame)) for frame in range(5)],
        "audio_features": {"rms_energy_mean": 0.05, "rms_energy_std": 0.02, "duration": 2.0},
        "start_time": 10.0,
        "end_time": 12.0,
        "duration": 2.0,
    }
    return good | changes


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def server_environment(port: int, **settings: str) -> dict[str, str]:
    """An environment for a server of its own on the bundled checkpoint; SECTION__KEY=value changes settings."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("QWEN_SERVER")}
    ours = {"MODEL__NAME": BUNDLED, "MODEL__DEVICE": "cpu", "SERVER__HOST": "127.0.0.1", "SERVER__PORT": str(port)}
    return plain | {f"QWEN_SERVER__{name}": value for name, value in (ours | settings).items()}


def wait_until_healthy(url: str, process: subprocess.Popen[str], seconds: float = PATIENCE_SECONDS) -> None:
    """Poll /health until it answers 200."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError("the server did not become healthy")


@contextmanager
def running_server(environ: Mapping[str, str], port: int, log: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A real server on a real port; ended afterwards if it still runs."""
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "server.py"], cwd=ROOT, env=dict(environ), stdout=out, stderr=out, text=True
        )
        try:
            wait_until_healthy(url, process)
            yield url, process
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE_SECONDS)


def engines_of(pid: int) -> list[psutil.Process]:
    """The engine processes of a server that has become healthy."""
    return [child for child in psutil.Process(pid).children() if child.name().startswith("qwen-engine")]


@contextmanager
def engine_standing_still(server: subprocess.Popen[str]) -> Iterator[None]:
    """Nothing that the server's engine has in hand is finished meanwhile, however slow everything else is.

    After some 5 s the server ends such an engine, starts another and gives that one the work again.
    """
    (engine,) = engines_of(server.pid)
    engine.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            engine.resume()


def assert_same(one: ShotReading, other: ShotReading) -> None:
    """Two answers to the same shot: equal captions, scores within the tolerance."""
    assert one.caption == other.caption
    for name, readings in one.readings.items():
        for a, b in zip(readings, other.readings[name], strict=True):
            assert a.value == pytest.approx(b.value, abs=TOLERANCE)
            assert a.spread == pytest.approx(b.spread, abs=TOLERANCE)


def assert_problem(answer: Any, status: int, *words: str) -> None:
    """A problem body by RFC 9457, whose detail has the words."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "request_id"}
    assert body["type"].startswith("urn:qwen-shots:error:")
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    for word in words:
        assert word in body["detail"]
