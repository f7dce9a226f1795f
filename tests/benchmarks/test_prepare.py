"""The benchmark of preparation: both ways end with the same pictures."""

from __future__ import annotations

import numpy as np
import pytest

import analyzer
from benchmarks import prepare
from serving import wire


def test_both_ways_prepare_the_same() -> None:
    shot = wire.parse_shot(wire.parse_json(prepare.body_of(1280, 720, 90)))
    whole, reduced = prepare.in_full(shot), analyzer.decode(shot, prepare.FIT).key_frames
    assert [picture.shape for picture in whole] == [(336, 588, 3)] * 3
    for one, other in zip(whole, reduced, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 1


def test_a_table_for_each_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["--rounds", "1", "--sizes", "720p", "--qualities", "85"]) == 0
    said = capsys.readouterr().out
    assert "720p, JPEG quality 85" in said
    assert "| no larger than needed |" in said
    assert "CPU ms a shot" in said
