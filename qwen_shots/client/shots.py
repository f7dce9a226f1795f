"""From a film file to its shots, with PySceneDetect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qwen_shots.client.film import FilmFrame, frames, open_film

if TYPE_CHECKING:
    from scenedetect import FrameTimecode

# Fast cutting in trailers and fights goes down to about this; a shorter change is a flash or a blow.
MIN_SECONDS = 0.5

# Mean of all channels, 0..255, below which a picture is black. PySceneDetect's own 12 takes night scenes for fades.
BLACK = 4

# Where no value of two pictures reaches this, there is no cut between them: in near-black, hue and saturation jump from
# one rounding to the next, and the end of a fade looks like a cut.
DIM = 32

# The detectors look at pictures this wide, as PySceneDetect itself does; cuts show in small ones as well.
WIDTH = 256


@dataclass(frozen=True, slots=True)
class Shot:
    """What the camera saw without a break.

    Attributes:
        start: seconds from the film's first picture.
        end: seconds; the next shot's start, or when the last picture goes.
    """

    start: float
    end: float

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.end - self.start


def find_shots(path: Path, on_progress: Callable[[float], None] | None = None) -> list[Shot]:
    """Cut a film into its shots.

    A hard cut is where a picture differs from the one before far more than its neighbours do, so that a moving camera
    makes none (PySceneDetect's adaptive detector). A fade to black and back is cut in the middle of the black (its
    threshold detector). One picture dissolving into another is not found.

    Args:
        path: the film file.
        on_progress: called with the seconds read so far, after each picture.

    Returns:
        Shots in order, without gaps, from 0 to the film's end; one where there is no cut. Between two cuts lie at
        least MIN_SECONDS.

    Raises:
        FilmError: the file is no film, or cut short.
    """
    with open_film(path) as film:
        finder = _CutFinder(film.frame_rate)
    starts, end = [], 0.0
    for frame in frames(path):
        starts.append(frame.start)
        end = frame.end
        finder.look(_small(frame))
        if on_progress:
            on_progress(end)
    borders = [0.0, *_borders(*([starts[number] for number in cuts] for cuts in finder.cuts())), end]
    return [Shot(start, end) for start, end in pairwise(borders)]


class _CutFinder:
    """PySceneDetect's detectors, fed with one small picture after another."""

    def __init__(self, frame_rate: Fraction) -> None:
        from scenedetect import AdaptiveDetector, ThresholdDetector

        self._rate = frame_rate
        self._brightest: list[int] = []
        self._hard = AdaptiveDetector(min_scene_len=MIN_SECONDS)
        self._fades = ThresholdDetector(threshold=BLACK, min_scene_len=MIN_SECONDS)
        self._found_hard: list[FrameTimecode] = []
        self._found_fades: list[FrameTimecode] = []

    def look(self, picture: NDArray[np.uint8]) -> None:
        """Take in the next picture."""
        now = self._at(len(self._brightest))
        self._found_hard += self._hard.process_frame(now, picture)
        self._found_fades += self._fades.process_frame(now, picture)
        self._brightest.append(int(picture.max()))

    def cuts(self) -> tuple[list[int], list[int]]:
        """The numbers of the pictures with which a shot begins: by a hard cut, and by a fade."""
        hard = [cut.frame_num for cut in self._found_hard]
        lit = [number for number in hard if max(self._brightest[number - 1 : number + 1]) >= DIM]
        return lit, [cut.frame_num for cut in self._found_fades]

    def _at(self, number: int) -> FrameTimecode:
        """A picture's number, not its time: in a film with an uneven rate a time would be rounded to another."""
        from scenedetect import FrameTimecode

        return FrameTimecode(number, self._rate)


def _borders(hard: Sequence[float], fades: Sequence[float]) -> list[float]:
    """All cuts in order, without the fades that end in a hard cut."""
    lone = [fade for fade in fades if all(abs(fade - cut) >= MIN_SECONDS for cut in (0.0, *hard))]
    return sorted({*hard, *lone})


def _small(frame: FilmFrame) -> NDArray[np.uint8]:
    """Blue, green and red, (height, at most WIDTH, 3)."""
    picture = frame.picture
    width = min(WIDTH, picture.width)
    height = max(1, round(picture.height * width / picture.width))
    return np.asarray(picture.reformat(width, height, "bgr24").to_ndarray(), np.uint8)
