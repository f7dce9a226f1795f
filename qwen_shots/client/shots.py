"""From a film file to its shots."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from qwen_shots.client import scenedetect_cuts
from qwen_shots.client.borders import MIN_SECONDS, Border, Detector
from qwen_shots.client.film import frames

if TYPE_CHECKING:
    from qwen_shots.client.thumbnails import Thumbnail

DETECTORS = ("structure", *scenedetect_cuts.NAMES, "transnet")
DEFAULT_DETECTOR = "structure"


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
    """Find where a film's shots begin and end, each as soon as it is certain, while the film is read.

    By default a hard cut is where the structure of the picture changes at once and does not come back, so that neither
    a moving camera nor a flash makes one. A fade through black or white is cut in the middle of it. One picture
    dissolving into another is found by `transnet` alone. Between two cuts lie at least MIN_SECONDS.

    Args:
        path: the film file.
        detector: one of DETECTORS: `structure`, one of PySceneDetect's, or `transnet`, which finds what `structure`
            finds, and dissolves with TransNetV2.
        on_progress: called with the seconds read so far, after each picture.

    Returns:
        In order, the film's beginning and its end among them.

    Raises:
        FilmError: the file is no film, or cut short.
        InvalidInput: the detector is not installed.
    """
    from qwen_shots.client.thumbnails import Thumbnails  # OpenCV takes long to import

    thumbnails, borders, end, count = Thumbnails(), make_detector(detector), 0.0, 0
    for count, frame in enumerate(frames(path), start=1):
        if count == 1:
            yield Border(0, frame.start)
        end = frame.end
        yield from borders.look(thumbnails.make(frame))
        if on_progress:
            on_progress(end)
    yield from borders.finish()
    yield Border(count, end)


def make_detector(name: str) -> Detector:
    """One of DETECTORS, for one film.

    Raises:
        InvalidInput: it is not installed.
    """
    from qwen_shots.client.cuts import StructureDetector
    from qwen_shots.client.dissolves import DissolveDetector
    from qwen_shots.client.fades import FadeDetector

    if name == "transnet":
        return Joined(make_detector(DEFAULT_DETECTOR), DissolveDetector())
    cuts = StructureDetector() if name == "structure" else scenedetect_cuts.SceneDetectDetector(name)
    return Joined(cuts, FadeDetector())


class Joined:
    """Borders of two detectors in one order, without those of the second that are near one of the first.

    Args:
        first: finds the hard cuts, say.
        second: finds the fades, some of which end in a hard cut.
    """

    def __init__(self, first: Detector, second: Detector) -> None:
        self._first, self._second = first, second
        self._waiting_first: deque[Border] = deque()
        self._waiting_second: deque[Border] = deque()
        self._last = -math.inf  # of the first

    @property
    def sure_until(self) -> float:
        """What waits has not been given; a border of the second may be as much older as it may be near."""
        waiting = [border.time for border in (*self._waiting_first, *self._waiting_second)]
        return min(self._first.sure_until - MIN_SECONDS, self._second.sure_until, *waiting)

    def look(self, picture: Thumbnail) -> Iterator[Border]:
        """Take in the next picture, and give the borders that are certain now."""
        self._waiting_first += self._first.look(picture)
        self._waiting_second += self._second.look(picture)
        yield from self._certain(self._first.sure_until, self._second.sure_until)

    def finish(self) -> Iterator[Border]:
        """Give the rest."""
        self._waiting_first += self._first.finish()
        self._waiting_second += self._second.finish()
        yield from self._certain(math.inf, math.inf)

    def _certain(self, first_until: float, second_until: float) -> Iterator[Border]:
        firsts, seconds = self._waiting_first, self._waiting_second
        while firsts or seconds:
            if firsts and not (seconds and seconds[0].time < firsts[0].time):
                if firsts[0].time > second_until:
                    return
                self._last = firsts[0].time
                yield firsts.popleft()
                continue
            if seconds[0].time + MIN_SECONDS > first_until:
                return
            border = seconds.popleft()
            following = firsts[0].time if firsts else math.inf
            if min(border.time - self._last, following - border.time) >= MIN_SECONDS:
                yield border
