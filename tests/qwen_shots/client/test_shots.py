"""Cuts that are known."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from qwen_shots.client.errors import FilmError
from qwen_shots.client.shots import DETECTORS, MIN_SECONDS, Border, Shot, _Joined, find_borders, find_shots
from qwen_shots.media import Picture
from tests.helpers import ROOT
from tests.qwen_shots.client.clips import RATE, picture, scenes, write_film

SINTEL = ROOT / "samples/sintel-trailer.mp4"
BUNNY = ROOT / "samples/big-buck-bunny-30s.mp4"


def programme(path: Path, pictures: list[Picture], starts: int) -> Path:
    """A piece of a transport stream, whose first picture has this number."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=RATE)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for number, image in enumerate(pictures, start=starts):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


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


def test_pictures_that_change_their_size(tmp_path: Path) -> None:
    """Two programmes of a broadcast, one after the other."""
    path = tmp_path / "a.ts"
    with path.open("wb") as film:
        for part, (height, width) in enumerate([(96, 160), (160, 160)]):
            pictures = [picture(number, part, height, width) for number in range(48)]
            film.write(programme(tmp_path / "part.ts", pictures, starts=48 * part).read_bytes())
    assert [shot.start for shot in find_shots(path)] == pytest.approx(
        [0, 48 / RATE], abs=1.5 / RATE
    )  # one is lost between


def test_times_that_begin_anew(tmp_path: Path) -> None:
    """Two recordings in one file, each with times from 0 on: the first one's shots would have none of their own."""
    path = tmp_path / "a.ts"
    parts = [programme(tmp_path / "part.ts", scenes(264), starts=0).read_bytes() for _ in range(2)]
    path.write_bytes(b"".join(parts))
    with pytest.raises(FilmError, match="begin anew after 11"):
        find_shots(path)


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


# --- as the film is read ---------------------------------------------------------------------------------------------


def test_a_shot_is_told_long_before_the_film_ends(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", scenes(30, 45, 60))
    read = [0.0]
    told = {border.frame: read[-1] for border in find_borders(path, on_progress=read.append)}
    assert list(told) == [0, 30, 75, 135]
    assert told[0] == 0
    assert told[30] < 34 / RATE
    assert told[75] < 79 / RATE


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_detector_finds_hard_cuts_in_a_real_film(detector: str) -> None:
    """Where ATTRIBUTION of the media says."""
    found = [border.time for border in find_borders(BUNNY, detector)]
    for seconds in (11.88, 15.75, 23.04):
        assert min(abs(seconds - time) for time in found) < 1 / 24
    assert found == sorted(set(found))


def test_the_bunny_has_these_cuts_and_no_others() -> None:
    found = list(find_borders(BUNNY))
    assert [border.time for border in found] == pytest.approx([0, 11.88, 15.75, 23.04, 30.0], abs=1 / 24)
    assert [border.frame for border in found] == [0, 285, 378, 553, 720]


def test_what_is_sure_comes_in_order_and_nothing_is_sure_too_early() -> None:
    joined = _Joined()
    joined.hard += [Border(10, 1.0), Border(50, 5.0), Border(60, 6.0)]
    joined.fades += [Border(12, 1.2), Border(30, 3.0), Border(57, 5.7), Border(80, 8.0)]
    assert [border.frame for border in joined.sure(6.0, 0.5)] == []  # a fade may come before the first cut
    assert [border.frame for border in joined.sure(6.0, 4.0)] == [10, 30]  # 12 ends in 10
    assert [border.frame for border in joined.sure(8.2, 8.2)] == [50, 60]  # 57 ends in 60; a cut may come after 80
    assert [border.frame for border in joined.sure(math.inf, math.inf)] == [80]
