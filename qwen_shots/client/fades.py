"""Find fades to black and white by what is plain black or white between them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qwen_shots.client.borders import MIN_SECONDS, ROUNDING, Border
from qwen_shots.client.thumbnails import COLOURS_HEIGHT, COLOURS_WIDTH, Thumbnail

# Luma, 0..255, of a thumbnail's pixels: no pixel of a black picture is brighter (16 is black that was taken for full
# range), none of a white one darker, and all are alike. So a night scene in which anything can be seen is not black.
BLACK, WHITE = 32, 224
ALIKE = 6
# By how much a pixel changes at most where a fade reaches the plain picture; in a cut or a flash it changes by more.
STEP = 64


class FadeDetector:
    """Finds fades through black and white; see the module.

    The border is in the middle of what is plain, or at its end where that is sudden: after a fade out the next shot may
    begin with a cut. What begins suddenly is left to the detectors of cuts, and a film that begins or ends in black has
    no border there.
    """

    def __init__(self) -> None:
        self._plain: list[tuple[int, float]] = []  # numbers and times of the plain pictures up to now
        self._before: Thumbnail | None = None
        self._sudden = False  # whether the plain pictures began so
        self._last = np.inf  # when the last shot began; the film's first plain pictures join nothing

    @property
    def sure_until(self) -> float:
        """While it is black, a fade may come that began with the black."""
        if self._plain:
            return self._plain[0][1]
        return self._before.start if self._before else -np.inf

    def look(self, picture: Thumbnail) -> Iterator[Border]:
        """Take in the next picture; where it ends what was plain, this may have been a fade."""
        sudden = self._before is not None and _step(self._before, picture) > STEP
        if is_plain(picture):
            self._sudden = self._sudden if self._plain else sudden
            self._plain.append((picture.number, picture.start))
        else:
            yield from self._ended(picture, sudden=sudden)
            self._plain.clear()
            self._last = min(self._last, picture.start)
        self._before = picture

    def finish(self) -> Iterator[Border]:
        """Nothing follows, so nothing is between."""
        return iter(())

    def _ended(self, picture: Thumbnail, *, sudden: bool) -> Iterator[Border]:
        if not self._plain or self._sudden:
            return
        middle = (self._plain[0][1] + picture.start) / 2
        fade = min(self._plain, key=lambda each: abs(each[1] - middle))
        number, start = (picture.number, picture.start) if sudden else fade
        if start - self._last >= MIN_SECONDS - ROUNDING:
            self._last = start
            yield Border(number, start, "cut" if sudden else "fade")


def _step(one: Thumbnail, other: Thumbnail) -> int:
    import cv2

    return int(cv2.absdiff(one.luma, other.luma).max())


def is_plain(picture: Thumbnail) -> bool:
    """Whether it is all black or all white but for its bars."""
    rows, columns = picture.active.slices(COLOURS_HEIGHT, COLOURS_WIDTH)
    luma = picture.colours[rows, columns, 0]
    darkest, brightest = luma.min(), luma.max()
    return bool(brightest - darkest <= ALIKE and (brightest <= BLACK or darkest >= WHITE))
