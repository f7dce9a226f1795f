"""Luminance against CIE's own scale; motion against pans of known speed and against optical flow of a real film."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr

from analyzer import decode, measure_frames
from qwen_shots import measure
from qwen_shots.media import Picture
from qwen_shots.schemas import Shot
from tests import helpers

FILM = helpers.ROOT / "samples" / "sintel-trailer.mp4"
# First frames of the film's shots, as scenedetect's ContentDetector finds them, and the film's end.
SHOTS = (15, 226, 288, 336, 398, 437, 519, 573, 623, 660, 722, 739, 774, 1016, 1252)

# Frames with people, places, near and far, light and dark.
STILLS = (80, 180, 250, 310, 370, 420, 480, 545, 600, 640, 690, 800, 900)


@pytest.fixture(scope="module")
def film() -> list[Picture]:
    with av.open(str(FILM)) as file:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in file.decode(video=0)]


@pytest.fixture(scope="module")
def stills(film: list[Picture]) -> list[Picture]:
    return [film[number] for number in STILLS]


def flat(*colour: int, height: int = 24, width: int = 40) -> Picture:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def panned(picture: Picture, step: float, frames: int = 5, width: int = 240) -> list[Picture]:
    """A camera that turns to the right by `step` picture widths a frame, within a picture twice as wide."""
    height, full = picture.shape[:2]
    size = (full * 2 // 5, height * 4 // 5)
    interpolation = cv2.INTER_AREA if width < size[0] else cv2.INTER_CUBIC
    seen = []
    for number in range(frames):
        left = step * size[0] * (number - (frames - 1) / 2)
        part = cv2.getRectSubPix(picture, size, (full / 2 + left, height / 2))
        part = cv2.resize(part, (width, width * size[1] // size[0]), interpolation=interpolation)
        seen.append(np.asarray(part, dtype=np.uint8))
    return seen


def motion(frames: Sequence[Picture]) -> float:
    value = measure.motion(frames)
    assert value is not None
    assert 0 <= value <= 1
    return value


def truth(step: float) -> float:
    return float(1 - np.exp(-step / 0.16))  # as the bundled model is taught


# --- luminance -------------------------------------------------------------------------------------------------------


def test_darkness_of_greys_is_what_cie_lightness_says() -> None:
    for grey in range(256):
        lab = cv2.cvtColor(np.full((1, 1, 3), grey / 255, dtype=np.float32), cv2.COLOR_RGB2Lab)
        darkness = measure.darkness(measure.luminance([flat(grey, grey, grey)]))
        assert darkness == pytest.approx(1 - lab[0, 0, 0] / 100, abs=0.002)


COLOURS = {
    (0, 0, 0): 0.0,
    (255, 255, 255): 1.0,
    # The Y row of sRGB's matrix.
    (255, 0, 0): 0.2126,
    (0, 255, 0): 0.7152,
    (0, 0, 255): 0.0722,
    # The grey of half the light.
    (188, 188, 188): 0.5,
}


@pytest.mark.parametrize(("colour", "luminance"), COLOURS.items())
def test_luminance_of_known_colours(colour: tuple[int, ...], luminance: float) -> None:
    assert measure.luminance([flat(*colour)]) == pytest.approx(luminance, abs=0.005)


def test_mid_grey_is_halfway() -> None:
    assert measure.darkness(0.184) == pytest.approx(0.5, abs=0.001)
    assert (measure.darkness(0), measure.darkness(1)) == (1, 0)


@given(values=st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_more_light_is_never_darker(values: list[float]) -> None:
    less, more = sorted(values)
    assert measure.darkness(more) <= measure.darkness(less)


def test_light_is_averaged_not_code_values() -> None:
    half = np.concatenate([flat(0, 0, 0), flat(255, 255, 255)])
    assert measure.luminance([half]) == pytest.approx(0.5)
    assert measure.luminance([flat(0, 0, 0), flat(255, 255, 255, height=300, width=300)]) == pytest.approx(0.5)


def test_luminance_of_real_frames(stills: list[Picture]) -> None:
    for frame in stills:
        coded = frame / 255
        light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4).astype(np.float32)
        expected = cv2.cvtColor(light, cv2.COLOR_RGB2XYZ)[..., 1].mean()  # OpenCV's own matrix; no curve in it
        assert measure.luminance([frame]) == pytest.approx(float(expected), abs=0.001)
    shares = [measure.luminance([frame]) for frame in stills]
    assert measure.luminance(stills) == pytest.approx(np.mean(shares))


def test_luminance_needs_a_frame() -> None:
    with pytest.raises(ValueError, match="needs a frame"):
        measure.luminance([])


# --- motion ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [0, 1])
def test_one_frame_tells_of_no_motion(stills: list[Picture], frames: int) -> None:
    assert measure.motion(stills[:frames]) is None


@pytest.mark.parametrize("frames", [2, 3, 5, 10])
def test_a_still_is_still(stills: list[Picture], frames: int) -> None:
    for frame in stills:
        assert motion([frame] * frames) <= 0.001


STEPS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.3)


@pytest.mark.parametrize("width", [160, 240, 720])
def test_pans_are_as_fast_as_they_are(stills: list[Picture], width: int) -> None:
    for step in STEPS:
        read = [motion(panned(still, step, frames=3, width=width)) for still in stills]
        assert np.median(read) == pytest.approx(truth(step), abs=0.05), step
        assert np.abs(np.array(read) - truth(step)).mean() <= 0.08, step


def test_motion_grows_with_the_speed_of_a_pan(stills: list[Picture]) -> None:
    in_order = []
    for still in stills:
        read = [motion(panned(still, step, frames=3)) for step in (0, *STEPS, 0.5)]
        in_order += [slower < faster for slower, faster in pairwise(read)]
    assert np.mean(in_order) >= 0.95


def test_motion_follows_optical_flow_on_a_real_film(film: list[Picture]) -> None:
    """Rank correlation with dense optical flow over pairs of frames a sixth of a second apart."""
    gap = 4
    read, flow = [], []
    for first, end in pairwise(SHOTS):
        for number in range(first, end - gap, 5):
            before, after = film[number], film[number + gap]
            read.append(motion([before, after]))
            flow.append(mean_flow(before, after))
    assert len(read) > 200
    assert spearmanr(read, flow).statistic >= 0.75
    within = [np.percentile(read, share) for share in (5, 95)]
    assert within[0] < 0.02
    assert within[1] > 0.3


def mean_flow(before: Picture, after: Picture) -> float:
    """Picture widths, by DIS optical flow (Kroeger et al. 2016)."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = dis.calc(grey[0], grey[1], np.zeros((*grey[0].shape, 2), dtype=np.float32))
    return float(np.hypot(flow[..., 0], flow[..., 1]).mean() / before.shape[1])


def as_jpeg(frame: Picture, quality: int) -> Picture:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def exposed(frame: Picture, gain: float) -> Picture:
    return np.asarray(np.clip(frame * gain, 0, 255), dtype=np.uint8)


def grainy(frame: Picture, seed: int) -> Picture:
    noise = np.random.default_rng(seed).normal(0, 8, frame.shape)
    return np.asarray(np.clip(frame + noise, 0, 255), dtype=np.uint8)


BOUND = 0.05  # what any of these may add to a still or change about a pan

SIZES = ((480, 204), (960, 408), (640, 272), (320, 136), (1280, 544))

Spoil = Callable[[Picture, int], Picture]
SPOILS: dict[str, Spoil] = {
    "jpeg": lambda frame, number: as_jpeg(frame, (90, 60, 75, 50, 85)[number]),
    "flicker": lambda frame, number: exposed(frame, (1.0, 0.8, 0.95, 0.75, 0.9)[number]),
    "fade": lambda frame, number: exposed(frame, (1.0, 0.85, 0.7, 0.55, 0.4)[number]),
    "grain": grainy,
    "size": lambda frame, number: np.asarray(Image.fromarray(frame).resize(SIZES[number])),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_what_is_no_movement(stills: list[Picture], spoil: str) -> None:
    still, moving = [], []
    for frame in stills:
        still.append(motion([SPOILS[spoil](frame, number) for number in range(5)]))
        pan = panned(frame, 0.05)
        moving.append(abs(motion([SPOILS[spoil](part, number) for number, part in enumerate(pan)]) - motion(pan)))
    assert np.max(still) <= BOUND
    assert np.mean(moving) <= BOUND


def test_a_cut_inside_is_no_movement(film: list[Picture], stills: list[Picture]) -> None:
    read = [motion([one, one, one, other, other]) for one, other in pairwise(stills)]
    assert np.median(read) <= 0.1
    assert np.max(read) <= 0.3
    # And in a shot that moves, it changes little.
    for one, other in pairwise(stills):
        pans = [panned(frame, 0.05) for frame in (one, other)]
        around = sorted(motion(pan) for pan in pans)
        assert around[0] - 0.15 <= motion([*pans[0][:3], *pans[1][:3]]) <= around[1] + 0.2


def test_frames_that_share_nothing_are_fast_movement(stills: list[Picture]) -> None:
    read = [motion([one, other]) for one, other in pairwise(stills)]
    assert np.median(read) >= 0.8
    assert motion(stills[:5]) >= 0.8


def test_nothing_to_follow_is_no_movement(stills: list[Picture]) -> None:
    assert motion([flat(0, 0, 0), flat(255, 255, 255), flat(90, 20, 10)]) <= 0.001
    for frame in stills:
        assert motion([flat(0, 0, 0, height=204, width=480), frame]) <= 0.001
        assert motion([frame, flat(255, 255, 255, height=204, width=480)]) <= 0.001


def test_all_frames_count_not_the_key_frames_alone(stills: list[Picture]) -> None:
    frames = panned(stills[4], 0.05, frames=2)
    encoded = [helpers.encode(frames[number % 2]) for number in range(5)]  # the key frames 0, 2 and 4 are one picture
    measured = measure_frames(decode(Shot.model_validate(helpers.shot(images=encoded)), None).frames)
    assert measured.motion == pytest.approx(truth(0.05), abs=0.1)
    still = measure_frames(decode(Shot.model_validate(helpers.shot(images=[encoded[0]] * 5)), None).frames)
    assert still.motion is not None
    assert still.motion <= 0.001


sides = st.tuples(st.integers(16, 90), st.integers(16, 90))


@given(sizes=st.lists(sides, min_size=2, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_any_frames_have_a_motion(sizes: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    motion([rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes])


@pytest.mark.parametrize("size", [(16, 16), (16, 320), (320, 16), (2160, 3840)])
def test_the_extremes_of_size(stills: list[Picture], size: tuple[int, int]) -> None:
    frame = np.asarray(Image.fromarray(stills[4]).resize((size[1], size[0])))
    assert motion([frame, frame]) <= 0.001
    assert motion([frame, np.roll(frame, max(2, size[1] // 10), axis=1)]) > 0.1
