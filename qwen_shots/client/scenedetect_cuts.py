"""Find hard cuts with PySceneDetect's detectors."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qwen_shots.client.borders import MIN_SECONDS, Border

if TYPE_CHECKING:
    from scenedetect import FrameTimecode, SceneDetector

    from qwen_shots.client.thumbnails import Thumbnail

NAMES = ("adaptive", "content", "hash", "histogram")

# PySceneDetect counts seconds by frame numbers at a constant rate: at this rate a picture's time is its number, however
# uneven the film's own rate is.
TICKS = 100_000.0

# Of 255: a darker pixel has no hue and no saturation, for they jump from one rounding to the next; where no pixel of
# two pictures is brighter, there is no cut between them.
DIM = 32


class SceneDetectDetector:
    """Feeds one of PySceneDetect's detectors with one picture after another, bars and the hue of dark pixels taken out.

    Args:
        name: one of NAMES.
    """

    def __init__(self, name: str) -> None:
        self._detector = _detector(name)
        self._starts: list[float] = []
        self._ticks: list[int] = []
        self._brightest: list[int] = []

    @property
    def sure_until(self) -> float:
        """The detector may be some pictures late."""
        late: int = self._detector.event_buffer_length
        return self._starts[max(0, len(self._starts) - 1 - late)] if self._starts else -np.inf

    def look(self, picture: Thumbnail) -> Iterator[Border]:
        """Take in the next picture."""
        from scenedetect import FrameTimecode

        self._starts.append(picture.start)
        self._ticks.append(round(picture.start * TICKS))
        self._brightest.append(int(picture.picture.max()))
        for cut in self._detector.process_frame(FrameTimecode(self._ticks[-1], TICKS), _cleaned(picture)):
            number = self._number(cut)
            if max(self._brightest[max(0, number - 1) : number + 1]) >= DIM:
                yield Border(number, self._starts[number])

    def finish(self) -> Iterator[Border]:
        """What the detector has not said by now is no cut."""
        return iter(())

    def _number(self, cut: FrameTimecode) -> int:
        return bisect_left(self._ticks, cut.frame_num)


def _detector(name: str) -> SceneDetector:
    import scenedetect
    from scenedetect.detector import FlashFilter

    if name == "content":
        mode = FlashFilter.Mode.SUPPRESS  # the other one is late, and lets the film end before a shot does
        return scenedetect.ContentDetector(min_scene_len=MIN_SECONDS, filter_mode=mode)
    kinds = {
        "adaptive": scenedetect.AdaptiveDetector,
        "hash": scenedetect.HashDetector,
        "histogram": scenedetect.HistogramDetector,
    }
    return kinds[name](min_scene_len=MIN_SECONDS)


def _cleaned(thumbnail: Thumbnail) -> NDArray[np.uint8]:
    """The picture on black bars, with dark pixels in grey."""
    rows, columns = thumbnail.active.slices(*thumbnail.luma.shape)
    shown = thumbnail.picture[rows, columns]
    cleaned = np.zeros_like(thumbnail.picture)
    dark = shown.max(axis=2, keepdims=True) < DIM
    cleaned[rows, columns] = np.where(dark, thumbnail.luma[rows, columns, None], shown)
    return cleaned
