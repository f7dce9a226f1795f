"""Find the active picture of film frames: what letterbox, pillarbox and windowbox bars leave of a frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwen_shots.media import Picture

Shares = NDArray[np.floating[Any]]
Luma = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice]

WORKING_SIDE = 384  # pixels of the longer side at which bars are looked for, where the frames have so many
STRIP = 0.01  # of a side: the outermost rows or columns, from which the level and the noise of the bars are read
BRIGHTEST_BAR = 40  # of 255: limited-range black shown as full range is 16, and old tapes have it higher
NOISIEST_BAR = 16  # of 255: how far nearly all of a bar is above its median, at most
CLEARANCE = 2  # of 255: by how much a lit pixel exceeds the bars, at least; clean bars of JPEG and H.264 vary by less
FAINT = 0.1  # of the picture's light: blocks of a low bit rate that reach from it into the bars are darker
NEVER_LIT = 24  # of 255: what has no brighter pixel is black or nearly so, and has no bars that could be told from it
QUIET = 0.03  # share of lit pixels in a row of a bar that has no text or logo in it
LIT = 0.3  # share of lit pixels in the first rows of a picture; subtitles and logos in a bar stay below it
STRAIGHT = 0.5  # share that is reached soon behind that; a round spotlight's is not
EDGE = 0.025  # of the shorter side: within this a bar ends; ringing blurs its edge, and a spotlight grows more slowly
FILLED = 0.4  # share of lit pixels in a picture; white text on black stays below it
INSIDE = 0.9  # share of all lit pixels that are in the picture; the others are subtitles and logos in the bars


@dataclass(frozen=True, slots=True)
class ActivePicture:
    """The part of a picture that is no bar (letterbox, pillarbox, windowbox), as shown: upright, square pixels.

    Attributes:
        left: share 0..1 of the picture's width that lies left of it.
        top: share 0..1 of the picture's height that lies above it.
        right: share of the width up to its right edge; 1 where there is no bar.
        bottom: share of the height up to its lower edge; 1 where there is no bar.
    """

    left: float
    top: float
    right: float
    bottom: float

    @property
    def bars(self) -> float:
        """Share of the picture's area that bars take, 0 to less than 1."""
        return 1 - (self.bottom - self.top) * (self.right - self.left)

    def slices(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns of a frame of this size, at least one of each."""
        return _pixels(self.top, self.bottom, height), _pixels(self.left, self.right, width)

    def crop(self, image: Image.Image) -> Image.Image:
        """The active part of an image; the image itself where there are no bars."""
        if self == WHOLE:
            return image
        rows, columns = self.slices(image.height, image.width)
        return image.crop((columns.start, rows.start, columns.stop, rows.stop))


WHOLE = ActivePicture(0.0, 0.0, 1.0, 1.0)


def _pixels(begin: float, end: float, side: int) -> slice:
    """The pixels that lie in it as a whole, so that none is mixed with a bar."""
    first = min(side - 1, int(np.ceil(begin * side - 1e-6)))
    return slice(first, max(first + 1, int(end * side + 1e-6)))


def active_picture(frames: Sequence[Picture | Image.Image]) -> ActivePicture:
    """Find the bars that all of these frames have in common.

    A bar reaches from one edge of the frame to the other, is dark and even in every frame, and ends in a straight line
    behind which the picture begins. Subtitles and logos may be in it. Where the outer part of a picture is as black as
    a bar but nothing ends in a straight line (a spotlight, a title card), it counts as picture; so does a frame that
    was never lit.

    Args:
        frames: (height, width, 3) or RGB each, of one shot or stretch of film; sizes may differ, their shape not.

    Returns:
        The whole frame where there are no bars, or no frames.
    """
    if not frames:
        return WHOLE
    light = brightest(frames)
    if light.max() < NEVER_LIT:
        return WHOLE
    lit = light > _darkest_lit(light)
    height, width = lit.shape
    found = max((box for box in _boxes(light, lit) if _is_picture(lit, box)), key=_outside, default=None)
    if found is None:
        return WHOLE
    rows, columns = found
    return ActivePicture(columns.start / width, rows.start / height, columns.stop / width, rows.stop / height)


def _boxes(light: Luma, lit: Mask) -> Iterator[Box]:
    """What bars above and below, at the sides, and all around would leave."""
    height, width = lit.shape
    edge = max(2, round(min(lit.shape) * EDGE))
    yield _extent(light, lit, edge), slice(0, width)
    yield slice(0, height), _extent(light.T, lit.T, edge)
    # Beside wide bars at the sides even the brightest row is lit for a small part only.
    seen = lit.mean(axis=0) >= LIT * lit.mean(axis=0).max()
    rows = _extent(light[:, seen], lit[:, seen], edge)
    columns = _extent(light[rows].T, lit[rows].T, edge)
    yield _extent(light[:, columns], lit[:, columns], edge), columns


def _is_picture(lit: Mask, box: Box) -> bool:
    """Whether it is filled, and next to nothing outside is lit."""
    inside = lit[box]
    return bool(inside.mean() >= FILLED and inside.sum() >= INSIDE * lit.sum())


def _outside(box: Box) -> int:
    rows, columns = box
    return -int((rows.stop - rows.start) * (columns.stop - columns.start))


def brightest(frames: Sequence[Picture | Image.Image]) -> Luma:
    """The highest luma that each pixel has in any frame, (height, width)."""
    greys = [_small(frame if isinstance(frame, Image.Image) else Image.fromarray(frame)) for frame in frames]
    size = greys[0].size
    light: Luma = np.maximum.reduce([np.asarray(grey if grey.size == size else grey.resize(size)) for grey in greys])
    return light


def _small(image: Image.Image) -> Image.Image:
    return image.convert("L").reduce(max(1, max(image.size) // WORKING_SIDE))


def _darkest_lit(light: Luma) -> float:
    """The value that only lit pixels exceed, a little above the frame's darkest edge; -1 where no edge is a bar."""
    across, down = (max(1, round(side * STRIP)) for side in light.shape)
    strips = (light[:across], light[-across:], light[:, :down], light[:, -down:])
    level, noisy = min((float(np.median(strip)), float(np.percentile(strip, 95))) for strip in strips)
    if level > BRIGHTEST_BAR or noisy > level + NOISIEST_BAR:
        return -1.0
    return noisy + max(CLEARANCE, (noisy - level) / 2, FAINT * (float(np.percentile(light, 90)) - noisy))


def _extent(light: Luma, lit: Mask, edge: int) -> slice:
    """The rows between the bars. An edge is sharp within so many rows."""
    levels, shares = light.mean(axis=1), lit.mean(axis=1)
    first, last = _bar(levels, shares, edge), len(lit) - _bar(levels[::-1], shares[::-1], edge)
    return slice(first, last) if first < last else slice(0, len(lit))


def _bar(levels: Shares, shares: Shares, edge: int) -> int:
    """How many rows a bar takes at the beginning, by the mean luma and the share of lit pixels of each row."""
    bright = shares >= LIT
    for row in np.flatnonzero(bright[:-2] & bright[1:-1] & bright[2:]):
        if row == 0:
            return 0
        before, behind = slice(max(0, row - edge), row), slice(row, row + edge)
        if shares[before].min() <= QUIET and shares[behind].max() >= STRAIGHT:
            # The first lit rows may be ringing: the picture begins where half of its light is reached.
            halfway = (levels[before].min() + levels[behind].max()) / 2
            return int(row + (levels[behind] >= halfway).argmax())
    return 0
