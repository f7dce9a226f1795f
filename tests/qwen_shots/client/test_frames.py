"""The five frames of a shot: which, when, and which way up."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from qwen_shots.client.frames import Still, stills_of, times_of
from qwen_shots.client.shots import Shot
from tests.helpers import ROOT
from tests.qwen_shots.client.clips import RATE, SCENES, number_of, opened, picture, scenes, set_rotation, write_film

SINTEL = ROOT / "samples/sintel-trailer.mp4"


def shot(first: int, last: int) -> Shot:
    return Shot(first / RATE, last / RATE)


def numbers(stills: list[Still]) -> list[int]:
    found = [number_of(opened(still.jpeg)) for still in stills]
    assert [still.time for still in stills] == pytest.approx([number / RATE for number in found], abs=1e-3)
    return found


def test_the_middle_of_each_fifth(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", scenes(50, 33))
    first, second = stills_of(path, [shot(0, 50), shot(50, 83)])
    assert numbers(first) == [5, 15, 25, 35, 45]
    # 50 + 3.3, 9.9, 16.5, 23.1, 29.7
    assert numbers(second) == [53, 59, 66, 73, 79]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6])
def test_short_shots_send_no_frame_twice(tmp_path: Path, length: int) -> None:
    path = write_film(tmp_path / "a.mp4", scenes(20, length, 20))
    (found,) = (numbers(stills) for stills in stills_of(path, [shot(20, 20 + length)]))
    assert found == sorted(set(found))
    assert len(found) == min(length, 5)
    assert set(found) <= set(range(20, 20 + length))


def test_only_as_much_is_read_as_is_asked_for(tmp_path: Path) -> None:
    whole = write_film(tmp_path / "a.mp4", scenes(60, 60, 60), web=True).read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: int(0.8 * len(whole))])
    first = next(stills_of(tmp_path / "a.mp4", [shot(0, 60), shot(60, 180)]))
    assert numbers(first) == [6, 18, 30, 42, 54]


def test_an_uneven_film(tmp_path: Path) -> None:
    """What is on the screen at the time, not every n-th picture."""
    path = write_film(tmp_path / "a.mkv", scenes(6), times=[0, 0.1, 0.2, 0.3, 0.4, 5.0])
    (stills,) = stills_of(path, [Shot(0.0, 5.5)])
    assert times_of(Shot(0.0, 5.5)) == pytest.approx([0.55, 1.65, 2.75, 3.85, 4.95])
    assert [number_of(opened(still.jpeg)) for still in stills] == [4]
    assert stills[0].time == pytest.approx(0.4, abs=1e-3)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_upright(tmp_path: Path, quarters: int) -> None:
    """Turned in the file and turned back by its display matrix."""
    seen = picture(37)
    path = write_film(tmp_path / "a.mp4", [np.ascontiguousarray(np.rot90(seen, quarters))] * 5)
    set_rotation(path, quarters)
    (stills,) = stills_of(path, [shot(0, 5)])
    image = opened(stills[0].jpeg)
    assert image.size == (seen.shape[1], seen.shape[0])
    assert number_of(image) == 37
    assert np.abs(np.asarray(image).astype(int) - seen).mean() < 8


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", scenes(3), aspect=Fraction(4, 3))
    (stills,) = stills_of(path, [shot(0, 3)])
    assert opened(stills[0].jpeg).size == (213, 96)


def test_large_pictures_are_scaled_down(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", [picture(5, height=1080, width=1920)])
    (stills,) = stills_of(path, [shot(0, 1)])
    image = opened(stills[0].jpeg)
    assert image.size == (720, 405)
    assert number_of(image) == 5


@pytest.mark.parametrize(("width", "height", "red"), [(160, 96, SCENES[0][0]), (1280, 720, (214, 55, 38))])
def test_colours_are_those_of_the_film(tmp_path: Path, width: int, height: int, red: tuple[int, int, int]) -> None:
    """The clip's YCbCr was made by BT.601's matrix; a film of HD height that says nothing is read by BT.709's."""
    path = write_film(tmp_path / "a.mp4", [picture(0, height=height, width=width)])
    (stills,) = stills_of(path, [shot(0, 1)])
    found = np.asarray(opened(stills[0].jpeg))[10, 30]
    assert found.tolist() == pytest.approx(red, abs=8)


def test_a_real_film() -> None:
    (stills,) = stills_of(SINTEL, [Shot(25.958, 27.5)])
    assert [opened(still.jpeg).size for still in stills] == [(480, 204)] * 5
    assert [still.time for still in stills] == pytest.approx([26.083, 26.417, 26.708, 27.0, 27.333], abs=0.05)
