"""The GPU benchmark's parts that need no GPU: attributes, steady batches, tables and pictures."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import model_loader
from benchmarks import charts, growth, stages
from benchmarks.gpu import table
from benchmarks.noise import random_shots
from benchmarks.steady import steady_seconds
from engines.runner import ModelRunner
from settings import Settings
from tests.helpers import ROOT


def test_the_table_tells_ratio_and_share() -> None:
    rows = table({"slow": 4.0, "fast": 0.5, "limit": 0.25}).splitlines()[2:]
    assert rows == ["| slow | 0.25 | 1.0 | 6.2% |", "| fast | 2.00 | 8.0 | 50.0% |", "| limit | 4.00 | 16.0 | 100.0% |"]


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton, which there is for Linux alone")
@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize("benchmark", ["attention.__main__", "products", "caption_step"])
def test_benchmarks_of_kernels_say_what_they_need(benchmark: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_module(f"benchmarks.{benchmark}").main([]) == 2
    assert "needs a" in capsys.readouterr().err


def test_more_attributes_are_added_to_those_that_there_are() -> None:
    six = {str(number): "" for number in range(6)}
    many = growth.more(six, 38)
    assert len(many) == 38
    assert list(many)[:6] == list(six)
    assert len(growth.more(six, 64)) == 64


def test_steady_batches_and_stages(settings: Settings) -> None:
    folder = model_loader.find_files(settings.model.name)
    loaded = model_loader.load(settings.model, folder, model_loader.make_plan(settings.model, folder))
    runner = ModelRunner(loaded, settings.attributes, 2)
    shots = random_shots(2, 2, 3)
    assert steady_seconds(runner, [shots, shots[:1]]) > 0
    parts = stages.measure(runner, shots, "cpu")
    told = stages.table(parts)
    assert "| see: the vision tower | cpu |" in told
    assert all(milliseconds > 0 for times in parts.values() for milliseconds in times.values())


@pytest.mark.parametrize("name", ["ways.svg", "stages.svg", "growth.svg", "replicas.svg"])
def test_the_pictures_are_of_the_figures(name: str, tmp_path: Path) -> None:
    for figures in ("gpu.json", "growth.json", "replicas.json"):
        (tmp_path / figures).write_bytes((charts.RESULTS / figures).read_bytes())
    charts.main(tmp_path)
    assert (tmp_path / name).read_text() == (ROOT / "benchmarks/results" / name).read_text()
