"""Kernels that are built ahead: the right widths, and on a GPU all that a start needs."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from engines.qwen2vl import building
from tests.helpers import BUNDLED

FOLDER = Path(__file__).parent.parent.parent / BUNDLED

# Prints what is compiled once everything has been built ahead.
START = """
import sys
from pathlib import Path
import numpy as np
import torch
from engines.base import ShotPictures
from engines.qwen2vl import building
folder = Path(sys.argv[1])
building.begin(folder, torch.bfloat16, 0).join()

from triton import knobs
names = []
knobs.runtime.jit_post_compile_hook = lambda *, fn, **_: names.append(fn.name)

import model_loader
from engines.budget import find_room
from engines.probe import probe_shot
from engines.runner import ModelRunner
from settings import load_settings
settings = load_settings(environ={"QWEN_SERVER__MODEL__NAME": str(folder)})
plan = model_loader.make_plan(settings.model, folder)
loaded = model_loader.load(settings.model, folder, plan)
runner = ModelRunner(loaded, settings.attributes, 8)
runner.look([probe_shot(loaded.pictures)] * 3)
runner.look([ShotPictures((np.zeros((336, 588, 3), np.uint8),) * 3)])
runner.backbone.warm_up(4000, 1000)
runner.look([probe_shot(loaded.pictures)])
print("compiled later:", *names)
"""


def test_widths_are_read_from_qwens_own_file_and_from_todays(tmp_path: Path) -> None:
    widths = building.read_widths(FOLDER)
    assert widths is not None
    assert (widths.hidden, widths.heads, widths.kept, widths.vision, widths.vision_inner) == (384, 6, 2, 256, 1024)
    config = json.loads((FOLDER / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | config.pop("text_config") | {"model_type": "qwen2_vl"}))
    assert building.read_widths(tmp_path) == widths
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "qwen3_vl"}))
    assert building.read_widths(tmp_path) is None


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton, which there is for Linux alone")
def test_every_call_fits_what_it_calls() -> None:
    widths = building.read_widths(FOLDER)
    assert widths is not None
    building.build(widths, torch.empty(0))


def test_a_start_goes_on_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, building.__name__):
        building.begin(tmp_path, torch.bfloat16, 0).join()
    assert "not built ahead (CannotLoad" in caplog.text
    assert "config.json" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_nothing_is_left_to_build() -> None:
    ran = subprocess.run([sys.executable, "-c", START, str(FOLDER)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "compiled later:"
