"""Pictures as a player shows them: HDR on an SDR screen, colours of films that don't say, every display matrix."""

from __future__ import annotations

import io
import math
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from qwen_shots.client.describe import describe
from qwen_shots.client.film import frames
from qwen_shots.client.frames import stills_of
from qwen_shots.client.rendering import Renderer, size_shown
from qwen_shots.client.shots import Shot, find_borders
from qwen_shots.measure import darkness, luminance, motion
from qwen_shots.media import Picture
from tests.qwen_shots.client.clips import RATE, opened, picture, set_display_matrix, write_film

LENGTH = 5
WIDTH, HEIGHT = 160, 96
# What the luma of each matrix counts of red and of blue (ITU-R BT.601, BT.709, BT.2020).
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)


@dataclass(frozen=True)
class Coding:
    """How a film's samples are made and what it says of them; the tags are code points of ITU-T H.273.

    Attributes:
        matrix: what luma counts of red and of blue.
        codec: FFmpeg's name.
        options: the encoder's.
        bits: of a sample.
        halved: whether chroma has half of luma's width and height.
        full: whether the range is full.
        colorspace: what the film says of its matrix; 2 is nothing.
        color_primaries: likewise.
        color_trc: likewise, of its curve.
    """

    matrix: tuple[float, float]
    codec: str = "ffv1"
    options: Mapping[str, str] = field(default_factory=dict)
    bits: int = 8
    halved: bool = True
    full: bool = False
    colorspace: int = 2
    color_primaries: int = 2
    color_trc: int = 2

    def planes(self, signal: NDArray[np.float64]) -> Iterator[NDArray[np.integer]]:
        """Luma and both chromas of a picture of 0..1 by ITU-R BT.2100's table 9."""
        red, blue = self.matrix
        luma = signal @ np.array([red, 1 - red - blue, blue])
        step, most = 2 ** (self.bits - 8), 2**self.bits - 1
        wide, chroma, foot = (most, most, 0) if self.full else (219 * step, 224 * step, 16 * step)
        yield self._samples(wide * luma + foot)
        for part, share in ((signal[..., 2], blue), (signal[..., 0], red)):
            difference = chroma * (part - luma) / (2 * (1 - share)) + 128 * step
            if self.halved:
                height, width = difference.shape
                difference = difference.reshape(height // 2, 2, width // 2, 2).mean((1, 3))
            yield self._samples(difference)

    def _samples(self, values: NDArray[np.float64]) -> NDArray[np.integer]:
        kind = "<u2" if self.bits > 8 else np.uint8
        samples: NDArray[np.integer] = values.round().clip(0, 2**self.bits - 1).astype(kind)
        return samples

    def frame(self, signal: NDArray[np.float64]) -> av.VideoFrame:
        """A picture for the encoder."""
        pixels = f"yuv{'420' if self.halved else '444'}p{'10le' if self.bits == 10 else ''}"
        frame = av.VideoFrame(signal.shape[1], signal.shape[0], pixels)
        for plane, samples in zip(frame.planes, self.planes(signal), strict=True):
            rows = np.zeros((plane.height, plane.line_size // samples.itemsize), samples.dtype)
            rows[:, : plane.width] = samples
            plane.update(rows.tobytes())
        return frame

    def write(self, path: Path, signal: NDArray[np.float64]) -> Path:
        """Write a film; `signal` is (pictures, height, width, 3), 0..1."""
        with av.open(str(path), "w") as container:
            stream = cast("av.VideoStream", container.add_stream(self.codec, rate=RATE, options=dict(self.options)))
            stream.height, stream.width = signal.shape[1:3]
            stream.pix_fmt = self.frame(signal[0]).format.name
            said = {"color_range": 2 if self.full else 1}
            said |= {name: getattr(self, name) for name in ("colorspace", "color_primaries", "color_trc")}
            for name, value in said.items():
                setattr(stream.codec_context, name, value)
            for number, one in enumerate(signal):
                frame = self.frame(one)
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                for name, value in said.items():
                    setattr(frame, name, value)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path


def moving(least: int, most: int) -> list[Picture]:
    """A pan over blobs of all colours between two codes."""
    noise = np.random.default_rng(3).random((HEIGHT // 12, (WIDTH + 40) // 12 + 1, 3))
    wide = cv2.resize(noise, (WIDTH + 40, HEIGHT), interpolation=cv2.INTER_CUBIC)
    wide = (wide - wide.min()) / (wide.max() - wide.min())
    codes = np.rint(least + (most - least) * wide).astype(np.uint8)
    return [codes[:, 6 * number : 6 * number + WIDTH] for number in range(LENGTH)]


SCENES = {"dark": (0, 50), "dim": (10, 120), "all": (0, 255), "bright": (150, 255), "snow": (225, 255)}


def in_hdr(codes: list[Picture], transfer: int) -> NDArray[np.float64]:
    """SDR put into HDR as ITU-R BT.2408 has it: BT.1886's light with white at 203 nits, in BT.2020's primaries."""
    nits = 203 * (np.stack(codes) / 255.0) ** 2.4
    # ITU-R BT.2087, table 5.
    to_bt2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    nits = nits @ np.array(to_bt2020).T
    if transfer == PQ:
        root = (nits / 10_000) ** 0.1593017578125
        return np.asarray(((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375)
    # BT.2100's inverse OOTF for a screen of 1,000 nits, and its OETF.
    seen = np.maximum(nits @ np.array([0.2627, 0.6780, 0.0593]), 1e-6)
    scene = nits / 1000 * (seen / 1000)[..., None] ** (1 / 1.2 - 1)
    upper = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.asarray(np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper))


PQ, HLG = 16, 18
HDR10 = Coding(BT2020, bits=10, colorspace=9, color_primaries=9, color_trc=PQ)
MASTERED = "master-display=G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L(40000000,50):max-cll=4000,400"
QUIET = {"x265-params": "log-level=none", "preset": "ultrafast", "crf": "12"}
VP9 = {"cpu-used": "8", "crf": "12"}
AV1 = {"preset": "12", "crf": "12"}
HEVC = replace(HDR10, codec="libx265", options=QUIET)

FILMS = {
    "hevc-pq.mp4": HEVC,
    "hevc-hlg.mov": replace(HEVC, color_trc=HLG),
    "hevc-mastered.mkv": replace(HEVC, options={**QUIET, "x265-params": f"log-level=none:{MASTERED}"}),
    "hevc-full.mp4": replace(HEVC, full=True),
    "hevc-hlg-full.mp4": replace(HEVC, color_trc=HLG, full=True),
    "hevc-8-bits.mp4": replace(HEVC, bits=8),
    "vp9-pq.webm": replace(HDR10, codec="libvpx-vp9", options=VP9, bits=8),
    "vp9-hlg.mkv": replace(HDR10, codec="libvpx-vp9", options=VP9, bits=8, color_trc=HLG),
    "av1-pq.mp4": replace(HDR10, codec="libsvtav1", options=AV1),
    "av1-hlg.mkv": replace(HDR10, codec="libsvtav1", options=AV1, color_trc=HLG),
}


def assert_measures_as(path: Path, codes: list[Picture]) -> None:
    (stills,) = stills_of(path, [Shot(0.0, LENGTH / RATE)])
    seen = [opened(still.jpeg) for still in stills]
    assert len(seen) == LENGTH
    assert darkness(luminance(seen)) == pytest.approx(darkness(luminance(codes)), abs=0.03)
    moved, expected = motion(seen), motion(codes)
    assert moved is not None
    assert expected is not None
    assert expected > 0.1
    assert moved == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("name", FILMS)
def test_hdr_measures_as_sdr(tmp_path: Path, name: str) -> None:
    codes = moving(0, 255)
    film = FILMS[name]
    assert_measures_as(film.write(tmp_path / name, in_hdr(codes, film.color_trc)), codes)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_dark_and_bright_scenes_in_hdr(tmp_path: Path, scene: str, transfer: int) -> None:
    codes = moving(*SCENES[scene])
    film = replace(HDR10, color_trc=transfer)
    assert_measures_as(film.write(tmp_path / "a.mkv", in_hdr(codes, transfer)), codes)


def first(path: Path) -> Picture:
    frame = next(frames(path))
    return Renderer().show(frame.picture, size_shown(frame))


def test_highlights_keep_their_order(tmp_path: Path) -> None:
    """Lamps and the sun, brighter than diffuse white, can be told apart."""
    nits = np.array([150, 203, 300, 600, 4000])
    root = (nits / 10_000) ** 0.1593017578125
    patches = ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375
    signal = np.broadcast_to(np.repeat(patches, 32)[:, None], (1, 96, 160, 3))
    path = HDR10.write(tmp_path / "a.mkv", signal)
    shown = first(path)[48, 16::32].mean(-1)
    assert shown[0] == pytest.approx(255 * (150 / 203) ** (1 / 2.4), abs=1.5)
    assert (np.diff(shown) >= 1).all()
    assert 245 < shown[1] <= shown[-1] <= 255


PATCHES = ((200, 40, 40), (40, 170, 60), (40, 60, 190), (128, 128, 128))


def patches(width: int, height: int) -> NDArray[np.float64]:
    columns = np.repeat(np.array(PATCHES), math.ceil(width / len(PATCHES)), axis=0)[:width]
    return np.broadcast_to(columns, (1, height, width, 3)) / 255


def assert_patches(path: Path, off: int = 4) -> None:
    shown = first(path)
    middles = shown[shown.shape[0] // 2, shown.shape[1] // 8 :: shown.shape[1] // 4]
    assert np.abs(middles.astype(int) - PATCHES).max() <= off


@pytest.mark.parametrize(
    ("size", "matrix"),
    [
        ((1280, 536), BT709),
        ((1280, 692), BT709),
        ((1920, 800), BT709),
        ((1920, 384), BT709),
        ((1280, 720), BT709),
        ((960, 720), BT709),
        ((480, 640), BT709),
        ((1024, 576), BT601),
        ((720, 576), BT601),
        ((720, 480), BT601),
        ((640, 360), BT601),
    ],
)
def test_colours_of_a_film_that_does_not_say(
    tmp_path: Path, size: tuple[int, int], matrix: tuple[float, float]
) -> None:
    """By the size: more than 576 lines, or 1280 columns and more, are BT.709's; as mpv has it."""
    assert_patches(Coding(matrix).write(tmp_path / "a.mkv", patches(*size)))


@pytest.mark.parametrize(
    ("size", "matrix", "tag"),
    [((1280, 536), BT601, 6), ((640, 360), BT709, 1), ((640, 360), BT2020, 9)],
)
def test_what_a_film_says_of_its_matrix_holds(
    tmp_path: Path, size: tuple[int, int], matrix: tuple[float, float], tag: int
) -> None:
    # BT.2020's matrix with BT.709's primaries: no colour is converted.
    film = Coding(matrix, colorspace=tag, color_primaries=1, color_trc=1)
    assert_patches(film.write(tmp_path / "a.mkv", patches(*size)))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_both_ranges(tmp_path: Path, full: bool, bits: int) -> None:
    film = Coding(BT709, "libx264", {"crf": "4", "preset": "ultrafast"}, bits, full=full, colorspace=1)
    assert_patches(film.write(tmp_path / "a.mp4", patches(320, 180)))


@pytest.mark.parametrize("film", [replace(HDR10, color_trc=14), Coding(BT2020, bits=10, colorspace=9)])
def test_wide_gamut_without_hdr(tmp_path: Path, film: Coding) -> None:
    """BT.2020 of standard range: the same colours have other codes."""
    light = patches(320, 180) ** 2.4
    wide = light @ np.linalg.inv([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]).T
    assert_patches(film.write(tmp_path / "a.mkv", wide ** (1 / 2.4)))


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_an_hdr_film_that_only_names_its_curve(tmp_path: Path, transfer: int) -> None:
    """The matrix and the primaries of HDR are BT.2020's, whatever the size."""
    signal = in_hdr([np.rint(255 * patches(320, 180)[0]).astype(np.uint8)], transfer)
    assert_patches(Coding(BT2020, bits=10, color_trc=transfer).write(tmp_path / "a.mkv", signal))


@pytest.mark.parametrize(("size", "said"), [((1280, 536), True), ((1280, 720), False), ((640, 360), False)])
def test_a_guess_that_players_disagree_about_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: tuple[int, int], said: bool
) -> None:
    describe(Coding(BT709).write(tmp_path / "a.mkv", patches(*size)), "adaptive")
    assert ("BT.709 is assumed" in caplog.text) is said


def matrix_of(degrees: float, mirrored: bool = False) -> tuple[float, float, float, float]:
    """The picture, mirrored left to right or not, and turned clockwise."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (-cosine, -sine, -sine, cosine) if mirrored else (cosine, sine, -sine, cosine)


# How each matrix moves the picture; the first letters are the corners' colours after it, clockwise from top left.
QUARTERS = {
    "RGBW": (1, 0, 0, 1),
    "GRWB": (-1, 0, 0, 1),
    "WBGR": (1, 0, 0, -1),
    "BWRG": (-1, 0, 0, -1),
    "WRGB": (0, 1, -1, 0),
    "GBWR": (0, -1, 1, 0),
    "RWBG": (0, 1, 1, 0),
    "BGRW": (0, -1, -1, 0),
}
CORNERS = {"R": (220, 30, 30), "G": (30, 200, 30), "B": (30, 30, 220), "W": (250, 250, 250)}


def cornered() -> Picture:
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image[:32, :48], image[:32, -48:], image[-32:, -48:], image[-32:, :48] = (CORNERS[one] for one in "RGBW")
    return image


def corners(image: NDArray[np.uint8]) -> str:
    found = (image[9, 9], image[9, -9], image[-9, -9], image[-9, 9])
    return "".join(min(CORNERS, key=lambda one: np.abs(np.array(CORNERS[one]) - colour).sum()) for colour in found)


def by_ffmpeg(path: Path) -> NDArray[np.uint8]:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "1", "-c:v", "ppm", "-f", "image2pipe", "-"]
    return np.asarray(Image.open(io.BytesIO(subprocess.run(command, check=True, capture_output=True).stdout)))


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("shift", [0, 160])
@pytest.mark.parametrize("expected", QUARTERS)
def test_all_eight_display_matrices(tmp_path: Path, expected: str, shift: int, scale: float) -> None:
    path = write_film(tmp_path / "a.mp4", [cornered()] * 2)
    a, b, c, d = (scale * part for part in QUARTERS[expected])
    set_display_matrix(path, a, b, c, d, shift, shift)
    (stills,) = stills_of(path, [Shot(0.0, 1 / RATE)])
    image = opened(stills[0].jpeg)
    assert corners(np.asarray(image)) == expected
    assert image.size == size_shown(next(frames(path)))
    reference = by_ffmpeg(path)
    assert image.size == reference.shape[1::-1]
    assert np.abs(np.asarray(image).astype(int) - reference).mean() < 6


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0.4, 1, 30, 89, 135, 200, 300.6, 359])
def test_other_angles_are_turned_as_ffmpeg_turns_them(tmp_path: Path, degrees: float, mirrored: bool) -> None:
    path = write_film(tmp_path / "a.mp4", [picture(37)] * 2)
    set_display_matrix(path, *matrix_of(degrees, mirrored))
    shown, reference = first(path), by_ffmpeg(path)
    assert shown.shape == reference.shape
    blurred = (cv2.blur(one.astype(np.float32), (5, 5)) for one in (shown, reference))
    assert np.abs(np.subtract(*blurred)).mean() < 3


def test_a_matrix_of_zeros_turns_nothing(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", [cornered()] * 2)
    set_display_matrix(path, 0, 0, 0, 0)
    assert corners(first(path)) == "RGBW"


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_detectors_see_hdr_as_sdr(tmp_path: Path, transfer: int) -> None:
    """Scenes so dark that there is no cut between them, and bright ones, between which there is one."""
    dark, bright = moving(0, 26)[0], moving(40, 200)[0]
    scenes = (dark, dark[:, ::-1, ::-1], bright, bright[:, ::-1, ::-1])
    codes = [scene for scene in scenes for _ in range(24)]
    sdr = Coding(BT709, colorspace=1, color_trc=1).write(tmp_path / "sdr.mkv", np.stack(codes) / 255)
    hdr = replace(HDR10, color_trc=transfer).write(tmp_path / "hdr.mkv", in_hdr(codes, transfer))
    assert [border.frame for border in find_borders(hdr)] == [border.frame for border in find_borders(sdr)]
