"""Bars whose size is known, around stills of a real film; and dark pictures that have none."""

from __future__ import annotations

import io
from dataclasses import astuple

import numpy as np
import pytest
from PIL import Image, ImageDraw

from analyzer import measure_frames
from qwen_shots.active_picture import WHOLE, ActivePicture, active_picture
from qwen_shots.media import Frame, Picture
from qwen_shots.schemas import Measured
from tests.helpers import ROOT
from tests.qwen_shots.client import clips

SCENES = ("alley", "dragon", "dunes", "face", "fight", "firelight", "ruins", "snow")
# Rows above and below, columns left and right, as shares of the picture's height and width.
BARS = [(0.05, 0.05, 0, 0), (0.3, 0.3, 0, 0), (0, 0, 0.2, 0.2), (0.15, 0.2, 0.1, 0.25), (0, 0.1, 0, 0), (1, 1, 1, 1)]


def still(scene: str, number: int = 1, light: float = 1.0) -> Picture:
    with Image.open(ROOT / f"samples/frames/{scene}-{number}.jpg") as image:
        return np.asarray(np.asarray(image.convert("RGB")) * light, np.uint8)


def barred(picture: Picture, bars: tuple[float, ...], level: int = 0, noise: float = 0.0) -> Picture:
    height, width = picture.shape[:2]
    above, below, left, right = (
        round(share * side) for share, side in zip(bars, (height, height, width, width), strict=True)
    )
    frame = np.full((height + above + below, width + left + right, 3), level, np.float64)
    frame[above : above + height, left : left + width] = level + picture * (1 - level / 255)
    frame += np.random.default_rng(1).normal(0, noise, frame.shape[:2])[..., None]
    return frame.clip(0, 255).astype(np.uint8)


def sent(frame: Picture, quality: int = 80) -> Picture:
    """As a client's JPEG has it."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def measured(frames: list[Picture]) -> Measured:
    return measure_frames([Frame(Image.fromarray(frame), frame.shape[:2]) for frame in frames])


@pytest.mark.parametrize("bars", BARS)
@pytest.mark.parametrize("scene", SCENES)
def test_bars_make_a_shot_neither_darker_nor_calmer(scene: str, bars: tuple[float, ...]) -> None:
    bare = [still(scene, number) for number in (1, 2, 3)]
    expected, found = measured([sent(frame) for frame in bare]), measured([sent(barred(frame, bars)) for frame in bare])
    assert found.darkness == pytest.approx(expected.darkness, abs=0.01)
    assert found.motion == pytest.approx(expected.motion, abs=0.1)


@pytest.mark.parametrize("scene", SCENES)
def test_so_in_the_dark(scene: str) -> None:
    night = still(scene, light=0.4)
    expected = measured([sent(night)]).darkness
    assert measured([sent(barred(night, (0.2, 0.2, 0, 0)))]).darkness == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("bars", BARS)
@pytest.mark.parametrize(("level", "noise", "quality"), [(0, 3, 60), (16, 0, 80), (16, 3, 60)])
def test_noisy_and_grey_bars_are_found(bars: tuple[float, ...], level: int, noise: float, quality: int) -> None:
    picture = still("dunes")
    height, width = picture.shape[:2]
    frame = sent(barred(picture, bars, level, noise), quality)
    above, below, left, right = bars
    whole = (1 + above + below, 1 + left + right)
    expected = (left / whole[1], above / whole[0], (1 + left) / whole[1], (1 + above) / whole[0])
    assert astuple(active_picture([frame])) == pytest.approx(expected, abs=0.01)
    assert active_picture([frame]).bars == pytest.approx(1 - 1 / (whole[0] * whole[1]), abs=0.02)


@pytest.mark.parametrize("above", [6, 15, 27, 39])
@pytest.mark.parametrize("scene", SCENES)
def test_blocks_of_a_poor_jpeg_in_the_bars_are_not_picture(scene: str, above: int) -> None:
    """Bars whose edge is in the middle of a block, above and below."""
    picture, below = still(scene), above + 5
    active = active_picture([sent(np.pad(picture, ((above, below), (0, 0), (0, 0))), quality=20)])
    height = len(picture) + above + below
    assert (active.left, active.right) == (0, 1)
    assert (active.top * height, active.bottom * height) == pytest.approx((above, height - below), abs=2)


def test_subtitles_and_a_logo_in_a_bar_are_not_picture() -> None:
    frame = Image.fromarray(barred(still("snow"), (0.25, 0.25, 0, 0)))
    draw = ImageDraw.Draw(frame)
    draw.text((110, 270), "What brings you to the land of the gatekeepers,\nand who do you search for?", fill="white")
    draw.ellipse((440, 5, 470, 35), fill="white")
    found = active_picture([np.asarray(frame)])
    assert (found.top, found.bottom) == pytest.approx((1 / 6, 5 / 6), abs=0.01)


def title_card() -> Picture:
    image = Image.new("RGB", (480, 204))
    ImageDraw.Draw(image).text((150, 90), "THE DURIAN OPEN MOVIE\n       PROJECT", fill="white")
    return np.asarray(image)


def spotlight() -> Picture:
    image = Image.new("RGB", (480, 204))
    ImageDraw.Draw(image).ellipse((140, -20, 340, 180), fill=(240, 230, 200))
    return np.asarray(image)


@pytest.mark.parametrize(
    "frame",
    [
        *(still(scene, light=light) for scene in SCENES for light in (1, 0.4, 0.1)),
        title_card(),
        spotlight(),
        clips.picture(13),
        clips.picture(700, scene=2),
        np.zeros((120, 200, 3), np.uint8),
        np.full((120, 200, 3), 255, np.uint8),
        np.random.default_rng(0).integers(0, 6, (120, 200, 3), np.uint8),
    ],
)
def test_a_dark_picture_keeps_its_edges(frame: Picture) -> None:
    assert active_picture([frame]) == WHOLE


def test_bars_are_what_no_frame_of_the_shot_lights() -> None:
    """A picture that opens from letterbox to the whole frame has no bars."""
    wide, whole = barred(still("dunes"), (0.2, 0.2, 0, 0)), np.full((286, 480, 3), 90, np.uint8)
    assert active_picture([wide, wide]).bars > 0.2
    assert active_picture([wide, whole]) == WHOLE
    assert active_picture([]) == WHOLE


def test_frames_of_two_sizes_have_the_same_bars() -> None:
    large = barred(still("face"), (0.2, 0.2, 0, 0))
    small = np.asarray(Image.fromarray(large).reduce(2))
    assert astuple(active_picture([large, small])) == pytest.approx(astuple(active_picture([large])), abs=0.01)


def test_a_crop_takes_no_pixel_of_a_bar() -> None:
    active = ActivePicture(0.25, 0.101, 0.75, 0.899)
    assert active.slices(100, 200) == (slice(11, 89), slice(50, 150))
    assert active.crop(Image.new("RGB", (200, 100))).size == (100, 78)
    assert active.slices(1, 1) == (slice(0, 1), slice(0, 1))
