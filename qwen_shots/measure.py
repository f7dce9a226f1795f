"""What the pixels themselves say: how dark a shot is, and how much it moves.

Vision-language models are weak at both (ShotBench: 47 % right on lighting, 30 % on camera movement), so their scores
are anchored to these measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from qwen_shots.active_picture import active_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwen_shots.media import Picture, Size

Luma = NDArray[np.floating[Any]]
Places = NDArray[np.intp]

# ITU-R BT.709 luma coefficients, the Y row of sRGB's matrix (IEC 61966-2-1).
LUMINANCE_OF_RGB = (0.2126, 0.7152, 0.0722)

WORKING_SIDE = 64  # pixels of the longer side: grain averages out, and following all blocks takes milliseconds
OVERSAMPLING = (
    4  # pixels of a frame, at least, for one of the working size: motion is off by 0.018 at most, with 2 by 0.04
)
BLOCK = 12  # pixels: small enough that near and far move on their own, large enough to be told from its neighbours
STEP = 8  # pixels between blocks, at most
GRAIN = 1.0  # of 255: what area-averaged film grain and JPEG noise leave; a match better by less is no movement
FLAT = 4.0  # of 255: contrast (standard deviation) below which a block has too little in it to be followed
HABIT = 0.5  # squared luma a pixel: of two equal matches the nearer one is true

# As the training of the bundled model has it (training/film/truth.py): picture widths between frames at 0.63.
MOTION_SCALE = 0.16
# Picture widths that a block which is not found again counts at least, among others that are: 0.05 to 0.16 were tried
# against optical flow over two films, and 0.1 has the least error.
LOST = 0.1
# Picture widths that are added when no two neighbouring frames share anything: faster than can be followed.
OUT_OF_SIGHT = 0.5


def _linear_light() -> NDArray[np.float64]:
    """The 256 values of an 8-bit sRGB channel in linear light (IEC 61966-2-1)."""
    coded = np.arange(256) / 255
    linear: NDArray[np.float64] = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    return linear


LINEAR_LIGHT = _linear_light()


def without_bars(frames: Sequence[Picture | Image.Image], size: Size) -> tuple[list[Image.Image], Size]:
    """Crop the frames of a shot to their active picture, so that bars count neither as darkness nor as stillness.

    Args:
        frames: (height, width, 3) sRGB pictures of one shape.
        size: (height, width) of the first frame before it was decoded at a reduced scale.

    Returns:
        The cropped frames, and the size that the first one has in the undecoded frame.
    """
    images = [_as_image(frame) for frame in frames]
    active = active_picture(images)
    rows, columns = active.slices(*size)
    return [active.crop(image) for image in images], (rows.stop - rows.start, columns.stop - columns.start)


def luminance(frames: Sequence[Picture | Image.Image]) -> float:
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


def _frame_luminance(frame: Picture | Image.Image) -> float:
    # Counting the 256 values is several times faster than looking up every pixel.
    image = _as_image(frame)
    counts = np.array(image.histogram(), dtype=np.float64).reshape(3, 256)
    channels = counts @ LINEAR_LIGHT / (image.width * image.height)
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


def motion(frames: Sequence[Picture | Image.Image], size: Size | None = None) -> float | None:
    """How much moves between the frames of a shot, camera and subjects alike, from every two that follow each other.

    Frames are cut down to `WORKING_SIDE` pixels of luma, and each pair is brought to the same mean and contrast, so
    that a fade or a change of exposure is no movement. Each block of a frame is looked for in the next one. With D the
    mean way of the blocks, in picture widths, the answer is `1 - exp(-D / MOTION_SCALE)`: a pan by a hundredth of the
    picture between frames is 0.06, by a tenth 0.46, by a third 0.88.

    A block may be lost: covered, out of the picture or changed. A pair counts by the share of blocks that are not, so
    a cut inside the shot is no movement. Where all pairs are lost, it is fast movement.

    Args:
        frames: (height, width, 3) pictures in time order, evenly spaced; sizes may differ.
        size: (height, width) of the first frame before it was decoded at a reduced scale; None where it was not.

    Returns:
        0 (still) to 1; None for fewer than two frames.
    """
    if len(frames) < 2:
        return None
    images = [_as_image(frame) for frame in frames]
    working = _working_size(size or (images[0].height, images[0].width))
    lumas = np.stack([_luma(image, working) for image in images])
    followed = _follow(lumas[:-1], lumas[1:])
    return float(1 - np.exp(-_mean_way(followed) / MOTION_SCALE))


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of the blocks of each frame in the next; both (pairs,).

    Attributes:
        way: mean way of those found, in picture widths.
        lost: share of those not found, 0..1.
    """

    way: Luma
    lost: Luma


def _mean_way(pairs: Followed) -> float:
    """Picture widths between neighbouring frames."""
    share = np.maximum(1 - pairs.lost, 1e-3)
    way = pairs.way + pairs.lost * np.maximum(0, LOST - pairs.way)
    mean = (share * way).sum() / share.sum()
    return float(mean + OUT_OF_SIGHT * max(0.0, 2 * pairs.lost.min() - 1))


def motion_size(size: Size) -> Size:
    """How large a frame must be at least for `motion` to read what it reads of the full size, within 0.02 on film."""
    height, width = _working_size(size)
    return OVERSAMPLING * height, OVERSAMPLING * width


def _as_image(frame: Picture | Image.Image) -> Image.Image:
    return frame if isinstance(frame, Image.Image) else Image.fromarray(frame)


def _working_size(size: Size) -> Size:
    """The longer side becomes `WORKING_SIDE`, the shorter one no smaller than a block."""
    height, width = (max(BLOCK, round(WORKING_SIDE * side / max(size))) for side in size)
    return height, width


def _luma(image: Image.Image, size: Size) -> Luma:
    height, width = size
    small = image.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) @ np.array(LUMINANCE_OF_RGB, dtype=np.float32)


def _follow(before: Luma, after: Luma) -> Followed:
    """Look for the blocks of frames in the next ones. The more there is in a block, the more it counts.

    Args:
        before: (pairs, height, width).
        after: likewise, what follows each.
    """
    deviation = [frames.std(axis=(1, 2), keepdims=True) for frames in (before, after)]
    # The lower contrast of the two: when one is black there is nothing to compare, which is no movement.
    contrast = np.minimum(*deviation)
    before, after = (
        contrast * (frames - frames.mean(axis=(1, 2), keepdims=True)) / np.maximum(own, 1e-3)
        for frames, own in zip((before, after), deviation, strict=True)
    )
    rows, columns = (_block_places(side) for side in before.shape[1:])
    blocks = sliding_window_view(before, (BLOCK, BLOCK), axis=(1, 2))[:, rows[:, None], columns]
    way, error, saved = _best_matches(_matching_errors(blocks, after), rows, columns)

    content = blocks.var(axis=(-2, -1)).reshape(way.shape)
    lost = np.clip(1.5 * np.maximum(error - 2 * GRAIN**2, 0) / (content + FLAT**2) - 0.25, 0, 1)
    weight = content / (content + FLAT**2) + 1e-9
    found = weight * (1 - lost) + 1e-9
    moved = way * np.clip(saved / GRAIN**2, 0, 1) / before.shape[2]
    return Followed(
        way=(found * moved).sum(axis=1) / found.sum(axis=1), lost=(weight * lost).sum(axis=1) / weight.sum(axis=1)
    )


@lru_cache(maxsize=256)
def _block_places(side: int) -> Places:
    """Where the blocks begin along a side, evenly spread from edge to edge."""
    places: Places = np.linspace(0, side - BLOCK, 1 + math.ceil((side - BLOCK) / STEP)).round().astype(np.intp)
    return places


def _matching_errors(blocks: Luma, frames: Luma) -> Luma:
    """Mean squared difference of each block from each place in a frame.

    Args:
        blocks: (pairs, rows, columns, BLOCK, BLOCK).
        frames: (pairs, height, width), one for each pair.

    Returns:
        (pairs, rows, columns, height - BLOCK + 1, width - BLOCK + 1), indexed last by the top row and the left column
        of the place.
    """
    pairs, rows, columns = blocks.shape[:3]
    places = sliding_window_view(frames, (BLOCK, BLOCK), axis=(1, 2))
    down, across = places.shape[1:3]
    # |a - b|^2 = |a|^2 + |b|^2 - 2ab. A stack of many small products, one for each row of blocks and of places: NumPy's
    # BLAS would share a large one out among threads of its own, which get in the way of those that decode.
    patches = places.reshape(pairs, 1, down, across, BLOCK**2)
    flat = blocks.reshape(pairs, rows, 1, columns, BLOCK**2)
    energy = np.einsum("prdak,prdak->prda", patches, patches)[..., None, :]
    own = np.einsum("prdck,prdck->prdc", flat, flat)[..., None]
    squares = own + energy - 2 * (flat @ patches.swapaxes(-1, -2))
    errors: Luma = np.maximum(squares, 0).swapaxes(2, 3) / BLOCK**2
    return errors


def _best_matches(errors: Luma, rows: Places, columns: Places) -> tuple[Luma, Luma, Luma]:
    """Where each block went, to parts of a pixel.

    Args:
        errors: as `_matching_errors` gives them.
        rows: where the rows of blocks stood.
        columns: likewise.

    Returns:
        Way in pixels, error there, and how much smaller that is than the error of standing still; each (pairs, blocks).
    """
    pairs, (height, width) = len(errors), errors.shape[-2:]
    judged = errors + _habit(height, width)
    errors = errors.reshape(-1, height, width)
    row, column = np.unravel_index(judged.reshape(len(errors), -1).argmin(axis=1), (height, width))
    each = np.arange(len(errors))
    error = errors[each, row, column]
    part_down, less_down = _lowest_point(*(errors[each, _within(row + step, height), column] for step in (-1, 0, 1)))
    part_across, less_across = _lowest_point(*(errors[each, row, _within(column + step, width)] for step in (-1, 0, 1)))
    stood_row = np.tile(np.repeat(rows, len(columns)), pairs)
    stood_column = np.tile(columns, pairs * len(rows))
    way = np.hypot(row - stood_row + part_down, column - stood_column + part_across)
    error = np.maximum(error - less_down - less_across, 0)
    saved = errors[each, stood_row, stood_column] - error
    return way.reshape(pairs, -1), error.reshape(pairs, -1), saved.reshape(pairs, -1)


@lru_cache(maxsize=16)
def _habit(height: int, width: int) -> Luma:
    """What each place counts more by its distance from each block; (rows, columns, height, width)."""
    rows, columns = (_block_places(side + BLOCK - 1) for side in (height, width))
    down = np.arange(height)[:, None] - rows[:, None, None, None]
    across = np.arange(width) - columns[:, None, None]
    habit: Luma = (HABIT * np.hypot(down, across)).astype(np.float32)
    return habit


def _within(places: Places, count: int) -> Places:
    return places.clip(0, count - 1)


def _lowest_point(left: Luma, middle: Luma, right: Luma) -> tuple[Luma, Luma]:
    """The bottom of the parabola through three errors a pixel apart.

    Returns:
        Its place, -0.5..0.5 from the middle one, and how far it lies below that; both 0 where the middle one is not
        the lowest.
    """
    bend = left - 2 * middle + right
    inside = (middle <= left) & (middle <= right) & (bend > 1e-6)
    tilt = np.where(inside, left - right, 0)
    bend = np.where(inside, bend, 1)
    return tilt / (2 * bend), tilt**2 / (8 * bend)
