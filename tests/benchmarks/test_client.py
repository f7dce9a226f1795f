"""The client's benchmark: its arithmetic, and that the naive way does the same work."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import naive
from benchmarks.client import Cost, run_naive, run_ours, spread, table
from qwen_shots.client.frames import stills_of
from qwen_shots.client.shots import Shot
from qwen_shots.client.store import ShotRecord
from tests.helpers import ROOT
from tests.qwen_shots.client.answering import AnsweringServer
from tests.qwen_shots.client.clips import opened, scenes, tone, write_film

BUNNY = ROOT / "samples/big-buck-bunny-30s.mp4"


def test_shots_are_spread_over_the_film() -> None:
    shots = [ShotRecord(number, number, number + 1, 0, 1) for number in range(1, 101)]
    assert [shot.number for shot in spread(shots, 4)] == [13, 38, 63, 88]
    assert spread(shots[:3], 10) == shots[:3]


def test_the_table_compares_speed_and_work() -> None:
    told = table({"slow": Cost(10, 5, 8), "fast": Cost(100, 10, 20)})
    assert told.splitlines()[2:] == ["| slow | 2.0 | 1.0 | 800.0 | 1.0 |", "| fast | 10.0 | 5.0 | 200.0 | 4.0 |"]


def small(jpeg: bytes) -> NDArray[np.float64]:
    return np.asarray(opened(jpeg).resize((160, 90)), np.float64)


def test_the_naive_way_takes_the_same_pictures() -> None:
    shot = ShotRecord(1, 12.0, 14.0, 288, 336)
    (ours,) = stills_of(BUNNY, [Shot(shot.start, shot.end)])
    for still, theirs in zip(ours, naive.frames(BUNNY, shot), strict=True):
        mine, other = (small(jpeg) for jpeg in (still.jpeg, base64.b64decode(theirs)))
        assert np.abs(mine - other).mean() < 3


@pytest.mark.filterwarnings("ignore:.*slated for removal:DeprecationWarning")  # librosa.load imports audioread
def test_both_ways_ask_about_every_shot(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4", scenes(30, 30, 24), sound=tone(440, 3.5))
    shots = [ShotRecord(1, 0.0, 1.25, 0, 30), ShotRecord(2, 1.25, 2.5, 30, 60)]
    with AnsweringServer() as server:
        ours = run_ours(film, tmp_path / "out", server.url)
        assert server.asked == {1: 1, 2: 1, 3: 1}
        assert ours.film == pytest.approx(3.5)
        assert min(ours.clock, ours.cpu, ours.memory) > 0
        theirs = run_naive(film, shots, server.url, naive.sought_sound)
        assert server.asked == {1: 3, 2: 2, 3: 1}
        assert min(theirs.clock, theirs.cpu) > 0
