"""From a film file to its shots, with PySceneDetect."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from qwen_shots.client.film import FilmFrame, frames, open_film
from qwen_shots.client.rendering import Renderer, size_shown

if TYPE_CHECKING:
    from scenedetect import FrameTimecode, SceneDetector

# What finds the hard cuts; all of PySceneDetect.
DETECTORS = ("adaptive", "content", "hash", "histogram")
DEFAULT_DETECTOR = "adaptive"

# Fast cutting in trailers and fights goes down to about this; a shorter change is a flash or a blow.
MIN_SECONDS = 0.5

# Mean of all channels, 0..255, below which a picture is black. PySceneDetect's own 12 takes night scenes for fades.
BLACK = 4

# Where no value of two pictures reaches this, there is no cut between them: in near-black, hue and saturation jump from
# one rounding to the next, and the end of a fade looks like a cut.
DIM = 32

# The detectors look at pictures this large, as PySceneDetect itself does; cuts show in small ones as well.
LONG_SIDE = 256


class Span(Protocol):
    """A stretch of the film: a Shot, or what the store knows of one. Times in seconds."""

    @property
    def start(self) -> float:
        """Of the first picture."""

    @property
    def end(self) -> float:
        """When the last picture goes."""

    @property
    def duration(self) -> float:
        """Between them."""


@dataclass(frozen=True, slots=True)
class Shot:
    """What the camera saw without a break.

    Attributes:
        start: seconds on the film's clock (see `film`), when a player shows the first picture.
        end: seconds; the next shot's start, or when the last picture goes.
    """

    start: float
    end: float

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Border:
    """Where one shot ends and the next begins.

    Attributes:
        frame: the number of the picture with which the next shot begins, from 0.
        time: seconds on the film's clock, when a player shows that picture; of the last border, when the film ends.
    """

    frame: int
    time: float


def find_shots(path: Path, on_progress: Callable[[float], None] | None = None) -> list[Shot]:
    """Cut a film into its shots, as `find_borders` does by default.

    Args:
        path: the film file.
        on_progress: called with the seconds read so far, after each picture.

    Returns:
        Shots in order, without gaps, from the first picture to the film's end; one where there is no cut.

    Raises:
        FilmError: the file is no film, or cut short.
    """
    return [Shot(one.time, other.time) for one, other in pairwise(find_borders(path, on_progress=on_progress))]


def find_borders(
    path: Path, detector: str = DEFAULT_DETECTOR, on_progress: Callable[[float], None] | None = None
) -> Iterator[Border]:
    """Where a film's shots begin and end, each as soon as it is sure, while the film is read.

    By default a hard cut is where a picture differs from the one before far more than its neighbours do, so that a
    moving camera makes none (PySceneDetect's adaptive detector). A fade to black and back is cut in the middle of the
    black (its threshold detector). One picture dissolving into another is not found. Between two cuts lie at least
    MIN_SECONDS.

    Args:
        path: the film file.
        detector: finds the hard cuts; one of DETECTORS.
        on_progress: called with the seconds read so far, after each picture.

    Returns:
        In order, the film's beginning and its end among them.

    Raises:
        FilmError: the file is no film, or cut short.
    """
    with open_film(path) as film:
        finder = _CutFinder(detector, film.frame_rate)
    end = 0.0
    for frame in frames(path):
        if not finder.seen:
            yield Border(0, frame.start)
        end = frame.end
        yield from finder.look(frame)
        if on_progress:
            on_progress(end)
    yield from finder.finish()
    yield Border(finder.seen, end)


class _CutFinder:
    """PySceneDetect's detectors, fed with one picture after another."""

    def __init__(self, detector: str, frame_rate: Fraction) -> None:
        from scenedetect import ThresholdDetector

        self._rate = frame_rate
        self._starts: list[float] = []
        self._brightest: list[int] = []
        self._hard = _detector(detector)
        self._fades = ThresholdDetector(threshold=BLACK, min_scene_len=MIN_SECONDS)
        self._joined = _Joined()
        self._shrinker = _Shrinker()

    @property
    def seen(self) -> int:
        """How many pictures."""
        return len(self._starts)

    def look(self, frame: FilmFrame) -> Iterator[Border]:
        """Take in the next picture; the cuts that are sure now."""
        from scenedetect import FrameTimecode

        picture = self._shrinker.shrink(frame)
        # A picture's number, not its time: in a film with an uneven rate a time would be rounded to another.
        now = FrameTimecode(self.seen, self._rate)
        self._starts.append(frame.start)
        self._brightest.append(int(picture.max()))
        for cut in self._hard.process_frame(now, picture):
            if max(self._brightest[cut.frame_num - 1 : cut.frame_num + 1]) >= DIM:
                self._joined.hard.append(self._border(cut))
        self._joined.fades += [self._border(cut) for cut in self._fades.process_frame(now, picture)]
        yield from self._joined.sure(self._known_until(), self._no_fade_before())

    def finish(self) -> Iterator[Border]:
        """The rest of the cuts."""
        yield from self._joined.sure(math.inf, math.inf)

    def _known_until(self) -> float:
        """Seconds up to which every hard cut has been told."""
        late: int = self._hard.event_buffer_length
        return self._starts[max(0, self.seen - 1 - late)]

    def _no_fade_before(self) -> float:
        """Seconds up to which every fade has been told: while it is black, one may come that begins with the black."""
        fade = self._fades.last_fade
        begun: int = fade["frame"].frame_num if fade["type"] == "out" else -1
        return self._starts[begun]

    def _border(self, cut: FrameTimecode) -> Border:
        return Border(cut.frame_num, self._starts[cut.frame_num])


class _Joined:
    """Hard cuts and fades in one order, without the fades that end in a hard cut."""

    def __init__(self) -> None:
        self.hard: deque[Border] = deque()
        self.fades: deque[Border] = deque()
        self._last_hard = 0.0

    def sure(self, hard_until: float, fades_until: float) -> Iterator[Border]:
        """What is sure when all hard cuts and all fades up to these seconds are known."""
        while self.hard or self.fades:
            if self.hard and not (self.fades and self.fades[0].time < self.hard[0].time):
                if self.hard[0].time > fades_until:
                    return
                self._last_hard = self.hard[0].time
                yield self.hard.popleft()
                continue
            fade = self.fades[0]
            if fade.time + MIN_SECONDS > hard_until:
                return
            self.fades.popleft()
            if not self._near_hard_cut(fade):
                yield fade

    def _near_hard_cut(self, fade: Border) -> bool:
        following = self.hard[0].time if self.hard else math.inf
        return fade.time - self._last_hard < MIN_SECONDS or following - fade.time < MIN_SECONDS


def _detector(name: str) -> SceneDetector:
    """Finds hard cuts, and tells each at most a few pictures late."""
    import scenedetect
    from scenedetect.detector import FlashFilter

    if name == "content":
        mode = FlashFilter.Mode.SUPPRESS  # the other one tells late, and lets the film end before a shot does
        return scenedetect.ContentDetector(min_scene_len=MIN_SECONDS, filter_mode=mode)
    kinds = {
        "adaptive": scenedetect.AdaptiveDetector,
        "hash": scenedetect.HashDetector,
        "histogram": scenedetect.HistogramDetector,
    }
    return kinds[name](min_scene_len=MIN_SECONDS)


class _Shrinker:
    """Makes pictures small, all as large as the first: detectors compare them, and a broadcast may change its size."""

    def __init__(self) -> None:
        self._renderer = Renderer()
        self._size: tuple[int, int] | None = None

    def shrink(self, frame: FilmFrame) -> NDArray[np.uint8]:
        """What is shown, in blue, green and red: (height, width, 3), the long side at most LONG_SIDE."""
        if self._size is None:
            width, height = size_shown(frame)
            shrink = min(1.0, LONG_SIDE / max(width, height))
            self._size = max(1, round(width * shrink)), max(1, round(height * shrink))
        return np.ascontiguousarray(self._renderer.show(frame.picture, self._size)[..., ::-1])
