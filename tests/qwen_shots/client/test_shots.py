"""Cuts that are known."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from qwen_shots.client.shots import MIN_SECONDS, Shot, find_shots
from tests.helpers import ROOT
from tests.qwen_shots.client.clips import RATE, picture, scenes, write_film

SINTEL = ROOT / "samples/sintel-trailer.mp4"


def borders(shots: list[Shot]) -> list[float]:
    assert all(one.end == other.start for one, other in pairwise(shots))
    assert all(shot.duration > 0 for shot in shots)
    return [shot.start for shot in shots] + [shots[-1].end]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_known_cuts(tmp_path: Path, name: str) -> None:
    path = write_film(tmp_path / name, scenes(30, 45, 20))
    expected = [0, 30 / RATE, 75 / RATE, 95 / RATE]
    assert borders(find_shots(path)) == pytest.approx(expected, abs=1e-3)


def test_no_cut_is_one_shot(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", scenes(40))
    assert borders(find_shots(path)) == pytest.approx([0, 40 / RATE])


def test_a_film_of_one_picture(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", scenes(1))
    assert borders(find_shots(path)) == pytest.approx([0, 1 / RATE], abs=1e-3)


def test_a_flash_is_no_shot(tmp_path: Path) -> None:
    plan = [picture(number, 1 if 20 <= number < 23 else 0) for number in range(60)]
    shots = find_shots(write_film(tmp_path / "a.mp4", plan))
    assert min(shot.duration for shot in shots) >= MIN_SECONDS
    assert len(shots) <= 2


def test_a_fade_is_cut_in_the_black(tmp_path: Path) -> None:
    light = np.concatenate([np.ones(30), np.linspace(1, 0, 24), np.zeros(12), np.linspace(0, 1, 24), np.ones(30)])
    plan = [(picture(number, int(number > 60)) * share).astype(np.uint8) for number, share in enumerate(light)]
    shots = find_shots(write_film(tmp_path / "a.mp4", plan))
    assert len(shots) == 2
    assert shots[0].end == pytest.approx(60 / RATE, abs=6 / RATE)


def test_times_of_an_uneven_film_are_its_own(tmp_path: Path) -> None:
    times = [number / 24 for number in range(40)] + [2.0 + number / 10 for number in range(40)]
    shots = find_shots(write_film(tmp_path / "a.mkv", scenes(40, 40), times=times))
    assert [shot.start for shot in shots] == pytest.approx([0, 2.0], abs=1e-3)


def test_a_real_trailer() -> None:
    """Cuts that a person sees, frame by frame."""
    heard: list[float] = []
    found = borders(find_shots(SINTEL, heard.append))
    for seconds in (9.42, 14.0, 16.58, 23.88, 25.96, 27.5, 42.33):
        assert min(abs(seconds - border) for border in found) < 0.05
    assert any(21.7 < border < 22.1 for border in found), "a fade"
    assert 12 <= len(found) - 1 <= 18
    assert heard == sorted(heard)
    assert heard[-1] == found[-1] == pytest.approx(1252 / 24)
