"""The benchmark of several GPUs, as far as a machine without one goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import replicas
from benchmarks.replicas import farthest, variables


def test_all_of_it_before_an_engine_of_fixed_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "KILLED_AFTER_SECONDS", 0.2)
    out = tmp_path / "rows.json"
    monkeypatch.setattr(replicas, "CONNECTIONS_A_GPU", 3)
    options = ["--gpus", "2", "--shots", "60", "--fixed-cost", "300", "--out", str(out)]
    assert replicas.main(options) == 0
    said = capsys.readouterr().out
    assert "an engine killed: 60 shots answered" in said
    assert "none lost; degraded, then healthy" in said
    assert "scores differ by 0.0000 at most" in said
    (row,) = json.loads(out.read_text())
    assert row["processes"] == 2
    assert row["told"]["status"] == "healthy"
    assert row["rate"] == pytest.approx(60 / row["seconds"])
    assert f"| 2 | replicate | 2 | {row['seconds']:.1f} | {row['rate']:.1f} | 1.00 |" in said


def test_what_the_servers_are_told() -> None:
    told = variables("m", 2, "shard", 1)
    assert told["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert told["QWEN_SERVER__MODEL__PLACEMENT"] == "shard"


def test_how_far_answers_are_apart() -> None:
    assert farthest([{"a": 0.5, "b": 0.1}, {"a": 0.0}], [{"a": 0.4, "b": 0.1}, {"a": 0.3}]) == pytest.approx(0.3)
