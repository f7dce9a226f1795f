"""Small copies of a film's pictures, as the detectors of cuts and fades look at them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen_shots.active_picture import WHOLE, ActivePicture, active_picture
from qwen_shots.client.film import FilmFrame
from qwen_shots.client.rendering import Renderer, size_shown

# As large as PySceneDetect makes them; cuts show in small pictures as well.
LONG_SIDE = 256
# So small that film grain averages out and a trembling camera changes little.
COLOURS_WIDTH, COLOURS_HEIGHT = 32, 18
# For so long a row has to be unlit before it counts as part of a bar.
BARS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture of the film.

    Attributes:
        number: from 0.
        start: seconds on the film's clock, when it comes on the screen.
        picture: (height, width, 3) blue, green and red, the long side at most LONG_SIDE.
        luma: (height, width) uint8.
        colours: (COLOURS_HEIGHT, COLOURS_WIDTH, 3) float32 Y, Cr and Cb, 0..255.
        active: its picture without bars, by what was lit in the last seconds.
    """

    number: int
    start: float
    picture: NDArray[np.uint8]
    luma: NDArray[np.uint8]
    colours: NDArray[np.float32]
    active: ActivePicture


class Thumbnails:
    """Makes thumbnails, all as large as the first: detectors compare them, and a broadcast may change its size."""

    def __init__(self) -> None:
        self._renderer = Renderer()
        self._size: tuple[int, int] | None = None
        self._bars = _Bars()
        self._count = 0

    def make(self, frame: FilmFrame) -> Thumbnail:
        """The thumbnail of the film's next picture."""
        import cv2

        if self._size is None:
            width, height = size_shown(frame)
            shrink = min(1.0, LONG_SIDE / max(width, height))
            self._size = max(1, round(width * shrink)), max(1, round(height * shrink))
        shown = self._renderer.show(frame.picture, self._size)
        picture = np.asarray(cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), np.uint8)
        parts = cv2.cvtColor(picture, cv2.COLOR_BGR2YCrCb)
        colours = cv2.resize(parts, (COLOURS_WIDTH, COLOURS_HEIGHT), interpolation=cv2.INTER_AREA)
        luma = np.ascontiguousarray(parts[..., 0])
        self._count += 1
        active = self._bars.active(frame.start, luma)
        return Thumbnail(self._count - 1, frame.start, picture, luma, colours.astype(np.float32), active)


class _Bars:
    """Knows the active picture of the last seconds."""

    def __init__(self) -> None:
        self._lit: deque[NDArray[np.uint8]] = deque(maxlen=2)
        self._since = 0.0
        self._active = WHOLE

    def active(self, now: float, luma: NDArray[np.uint8]) -> ActivePicture:
        """What is active now, with this picture; looked for anew twice in BARS_SECONDS."""
        if not self._lit or now - self._since >= BARS_SECONDS / 2:
            self._lit.append(luma)
            self._since = now
            self._active = active_picture([np.maximum.reduce(list(self._lit))])
        else:
            self._lit[-1] = np.maximum(self._lit[-1], luma)
        return self._active
