"""Find hard cuts: where the picture's structure changes from one picture to the next, or as PySceneDetect does.

A cut changes what is seen; a flash, an explosion, a flickering lamp or a fade changes how bright it is, and a pan or a
trembling camera where it is. So pictures are compared by their structure (luma with its local mean and contrast taken
out) in the place where it matches best, which is phase correlation with energy normalisation (Kuglin and Hines, 1975).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen_shots.active_picture import active_picture
from qwen_shots.client.borders import MIN_SECONDS, ROUNDING, Border
from qwen_shots.client.thumbnails import Thumbnail

Structure = NDArray[np.float32]

# How far before and after a change is looked: a flash is over by then.
WINDOW_SECONDS = 0.5
# A change counts as sudden by the median of those within this time.
NEIGHBOURS_SECONDS = 0.25
SUDDEN = 2.2  # times the neighbours' changes, at least, and
LEAST_CHANGE = 2.0  # levels of 255 more; Y, Cr and Cb together
# Pictures of WINDOW_SECONDS that are compared, at most, on each side.
COMPARED = 6
# Correlation of structure below which two pictures show different things: over the films of benchmarks/cuts.py it is
# below 0.3 at cuts, and above 0.5 elsewhere, whip pans included.
SAME = 0.42
# Levels of 255: two pictures whose luma differs by less everywhere are the same. Black has no structure to compare, and
# an encoder may make all of it a level lighter from one picture to the next; cuts in the dark change more somewhere.
ALIKE = 6.0
# Where pictures are too far apart to tell what is sudden: slides of different things are below it.
STRANGE = 0.22
# Where the changes on both sides are small beside this one, it is one between two different things at rest.
SETTLED = 0.2
# A change that comes back within WINDOW_SECONDS to less than this share was a flash.
BACK = 0.5
# The change on one side is larger by this than the one that is judged: it is a part of a gradual change.
GRADUAL = 1.5
# Cr and Cb together: how much the colour of a scene of the same structure changes at least in a cut.
RECOLOURED = 20.0

STRUCTURE_WIDTH, STRUCTURE_HEIGHT = 64, 36
LOCAL = 9  # pixels of a neighbourhood
LEAST_CONTRAST = 3.0  # of 255, standard deviation: noise below it is no structure
FLAT = 0.02  # mean square of a structure, of 1: what has less shows nothing
REACH = 0.25  # of the width and height: how far things may move from one picture to the next


@dataclass(frozen=True, slots=True)
class _Seen:
    """A picture, and how far its colours are from those of the one before."""

    picture: Thumbnail
    change: float


class StructureDetector:
    """Finds hard cuts by structure: see the module."""

    def __init__(self) -> None:
        self._around: list[_Seen] = []
        self._here = 1  # the picture that is judged next; it needs one before it
        self._last = -np.inf

    @property
    def sure_until(self) -> float:
        """Up to the picture before the one that is judged next."""
        return self._around[self._here - 1].picture.start if self._around else -np.inf

    def look(self, picture: Thumbnail) -> Iterator[Border]:
        """Judge the pictures after which enough has been seen."""
        if not self._around:
            self._last = picture.start
        change = _distance(self._around[-1].picture, picture) if self._around else 0.0
        self._around.append(_Seen(picture, change))
        while self._here < len(self._around) - 1 and self._start(self._here) + WINDOW_SECONDS < picture.start:
            yield from self._judge()

    def finish(self) -> Iterator[Border]:
        """Judge the last pictures by what there is."""
        while self._here < len(self._around):
            yield from self._judge()

    def _start(self, index: int) -> float:
        return self._around[index].picture.start

    def _judge(self) -> Iterator[Border]:
        now = self._start(self._here)
        if now - self._last >= MIN_SECONDS - ROUNDING and self._is_cut(self._limit()):
            self._last = now
            yield Border(self._around[self._here].picture.number, now)
        self._here += 1
        while self._here > 1 and self._start(0) < now - WINDOW_SECONDS:
            self._around.pop(0)
            self._here -= 1

    def _limit(self) -> float:
        """The correlation that a cut here stays below: 0 where the change is as small as those around it."""
        around, here = self._around, self._here
        now, change = self._start(here), around[here].change
        others = [(seen.picture.start, seen.change) for seen in (*around[1:here], *around[here + 1 :])]
        near = [other for start, other in others if abs(start - now) <= NEIGHBOURS_SECONDS]
        # In a slide show each picture is another scene, or the next of a moving one.
        beside = [seen.change for seen in (*around[1:here][-1:], *around[here + 1 :][:1])]
        usual = float(np.median(near)) if near else min(beside, default=0.0)
        if change > SUDDEN * usual + LEAST_CHANGE:
            return SAME
        return STRANGE if not near and change > LEAST_CHANGE else 0.0

    def _is_cut(self, limit: float) -> bool:
        if not limit:
            return False
        change, now = self._around[self._here].change, self._start(self._here)
        seen = [each.picture for each in self._around]
        before = _some(seen[: self._here][::-1])
        after = _some([picture for picture in seen[self._here :] if picture.start <= now + WINDOW_SECONDS])
        last, first = before[0], after[0]
        back = [_distance(last, picture) for picture in after] + [_distance(picture, first) for picture in before]
        if min(back) < BACK * change:
            return False
        drifts = [[_distance(side[0], picture) for picture in side[1:]] for side in (before, after)]
        drift = max(float(np.median(each)) if each else 0.0 for each in drifts)
        if drift > GRADUAL * change:
            return False
        if not is_same(before, after, limit):
            return True
        return _is_recoloured(before, after)


def _is_recoloured(before: Sequence[Thumbnail], after: Sequence[Thumbnail]) -> bool:
    """Whether the colour is another one for good: scenes of the same structure, such as two titles."""
    hues = slice(1, 3)
    change = _distance(before[0], after[0], hues)
    drifts = [[_distance(side[0], picture, hues) for picture in side[1:]] for side in (before, after)]
    return change > RECOLOURED and all(each and np.median(each) < SETTLED * change for each in drifts)


def _some(pictures: Sequence[Thumbnail]) -> list[Thumbnail]:
    """The first, and others evenly spread."""
    return list(pictures[:: max(1, -(-len(pictures) // COMPARED))])


def _distance(one: Thumbnail, other: Thumbnail, channels: slice = slice(None)) -> float:
    """Mean difference of the colours, the channels added up, 0..765."""
    difference = np.abs(one.colours[..., channels] - other.colours[..., channels])
    return float(difference.mean(axis=(0, 1)).sum())


def is_same(before: Sequence[Thumbnail], after: Sequence[Thumbnail], limit: float = SAME) -> bool:
    """Compare what is seen before and after a change, bars left out.

    Args:
        before: pictures, the nearest one first.
        after: likewise.
        limit: correlation of structure above which two pictures show the same.

    Returns:
        Whether the nearest one before shows what one of those after it does, or the nearest one after what was before.
    """
    before, after = _some(before), _some(after)
    pairs = [(before[0], each) for each in after] + [(each, after[0]) for each in before[1:]]
    if any(_is_alike(*pair) for pair in pairs):
        return True
    light = np.maximum.reduce([picture.luma for picture in (*before, *after)])
    rows, columns = active_picture([light]).slices(*light.shape)
    structures = {picture.number: _structure(picture.luma[rows, columns]) for picture in (*before, *after)}
    return max(_correlation(structures[one.number], structures[other.number]) for one, other in pairs) > limit


def _is_alike(one: Thumbnail, other: Thumbnail) -> bool:
    return bool(np.abs(one.colours[..., 0] - other.colours[..., 0]).max() < ALIKE)


def _structure(luma: NDArray[np.uint8]) -> Structure:
    """A small picture without its local mean and contrast; 0 where it is flat."""
    import cv2

    small = cv2.resize(luma, (STRUCTURE_WIDTH, STRUCTURE_HEIGHT), interpolation=cv2.INTER_AREA).astype(np.float32)
    mean = cv2.blur(small, (LOCAL, LOCAL))
    variance = np.maximum(cv2.blur(small * small, (LOCAL, LOCAL)) - mean * mean, 0)
    structure: Structure = (small - mean) / np.sqrt(variance + LEAST_CONTRAST**2)
    return structure


def _correlation(one: Structure, other: Structure) -> float:
    """How much of the structure is the same where it fits best, -1..1; 0 where there is none."""
    energy = [float((each * each).sum()) for each in (one, other)]
    if min(energy) < FLAT * one.size:
        return 0.0
    product = np.fft.rfft2(one) * np.conj(np.fft.rfft2(other))
    fit = np.fft.fftshift(np.fft.irfft2(product, s=one.shape))
    height, width = one.shape
    down, across = round(height * REACH), round(width * REACH)
    near = fit[height // 2 - down : height // 2 + down + 1, width // 2 - across : width // 2 + across + 1]
    return float(near.max()) / float(np.sqrt(energy[0] * energy[1]))
