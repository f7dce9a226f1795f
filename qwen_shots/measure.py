"""What the pixels themselves say: how dark a shot is, and how much it moves.

Vision-language models are weak at both (ShotBench: 47 % right on lighting, 30 % on camera movement), so their scores
are anchored to these measurements.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwen_shots.media import Picture

Luma = NDArray[np.float32]

# ITU-R BT.709 luma coefficients, the Y row of sRGB's matrix (IEC 61966-2-1).
LUMINANCE_OF_RGB = (0.2126, 0.7152, 0.0722)

WORKING_SIDE = 64  # pixels of the longer side: grain averages out, and a pan of half a frame is still seen
SCALES = 4  # 64, 32, 16 and 8 pixels: each finer one tells small movement, each coarser one large movement
GRAIN = 2.0  # of 255: differences that area-averaged film grain and JPEG noise leave
FLAT = 4.0  # of 255: contrast (standard deviation) below which a picture has too little in it to see it move
UNRELATED = 2 / np.sqrt(np.pi)  # mean |a - b| of two independent standard normals: two pictures that share nothing


def _linear_light() -> NDArray[np.float64]:
    """The 256 values of an 8-bit sRGB channel in linear light (IEC 61966-2-1)."""
    coded = np.arange(256) / 255
    linear: NDArray[np.float64] = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    return linear


LINEAR_LIGHT = _linear_light()


def luminance(frames: Sequence[Picture]) -> float:
    """Mean relative luminance over some frames, each counting the same.

    Args:
        frames: one or more (height, width, 3) sRGB pictures, of any sizes.

    Returns:
        0 (black) to 1 (white), averaged in linear light.

    Raises:
        ValueError: no frames.
    """
    if not frames:
        raise ValueError("luminance needs a frame")
    light = sum(_frame_luminance(frame) for frame in frames) / len(frames)
    return min(1.0, max(0.0, light))


def _frame_luminance(frame: Picture) -> float:
    # Counting the 256 values is several times faster than looking up every pixel.
    counts = np.array(Image.fromarray(frame).histogram(), dtype=np.float64).reshape(3, 256)
    channels = counts @ LINEAR_LIGHT / (frame.shape[0] * frame.shape[1])
    return float(channels @ LUMINANCE_OF_RGB)


def darkness(luminance: float) -> float:
    """How dark a luminance looks: 1 - L*/100, with the lightness L* of CIE 1976 (CIE 15:2004).

    Args:
        luminance: relative luminance, 0..1.

    Returns:
        0 (white) to 1 (black); mid grey (luminance 0.184) is 0.5.
    """
    root = luminance ** (1 / 3) if luminance > (6 / 29) ** 3 else luminance / (3 * (6 / 29) ** 2) + 4 / 29
    return min(1.0, max(0.0, 1 - (116 * root - 16) / 100))


def motion(frames: Sequence[Picture]) -> float | None:
    """How much moves between the frames of a shot, from the change across every two that follow each other.

    Frames are cut down to `WORKING_SIDE` pixels of luma. A pair is brought to the same mean and contrast (so that a
    fade or a change of exposure is no movement), and its change is the mean over `SCALES` of

        mean(max(0, |a - b| - GRAIN)) / ((contrast + FLAT) * UNRELATED)

    A finer scale saturates at a small shift and a coarser one at a large shift, so their mean goes on growing with
    speed, about with its logarithm. The answer is the mean over the pairs.

    Args:
        frames: (height, width, 3) pictures in time order, evenly spaced; sizes may differ.

    Returns:
        0 (still) to 1 (neighbouring frames share nothing); None for fewer than two frames.
    """
    if len(frames) < 2:
        return None
    size = _working_size(*frames[0].shape[:2])
    small = [_luma(frame, size) for frame in frames]
    changes = [_change(before, after) for before, after in pairwise(small)]
    return min(1.0, sum(changes) / len(changes))


def _working_size(height: int, width: int) -> tuple[int, int]:
    """(width, height) with the longer side `WORKING_SIDE`, both divisible so that the scales halve evenly."""
    step = 2 ** (SCALES - 1)
    width, height = (step * max(1, round(WORKING_SIDE * side / max(height, width) / step)) for side in (width, height))
    return width, height


def _luma(frame: Picture, size: tuple[int, int]) -> Luma:
    small = Image.fromarray(frame).resize(size, Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) @ np.array(LUMINANCE_OF_RGB, dtype=np.float32)


def _change(before: Luma, after: Luma) -> float:
    """Change of one pair, 0 to about 1, whatever the exposure of each."""
    contrast = min(float(before.std()), float(after.std()))
    # The lower contrast of the two: when one is black there is nothing to compare, which is no movement.
    a, b = (contrast * (luma - luma.mean()) / max(float(luma.std()), 1e-3) for luma in (before, after))
    changes = []
    for scale in range(SCALES):
        if scale:
            a, b = _halve(a), _halve(b)
        excess = float(np.maximum(np.abs(a - b) - GRAIN, 0).mean())
        changes.append(excess / ((min(float(a.std()), float(b.std())) + FLAT) * float(UNRELATED)))
    return sum(changes) / SCALES


def _halve(luma: Luma) -> Luma:
    height, width = luma.shape
    halved: Luma = luma.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3), dtype=np.float32)
    return halved
