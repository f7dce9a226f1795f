"""The frames that stand for a shot: evenly spaced, upright, small, as JPEG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from qwen_shots.client.film import FilmFrame, frames
from qwen_shots.client.rendering import Renderer, size_shown
from qwen_shots.client.shots import Span

FRAMES = 5
# The server looks at 256 tokens of 28 x 28 pixels a picture (its model.max_frame_tokens): this much of any shape.
MAX_SIDE = 720
JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Still:
    """One frame of a shot.

    Attributes:
        time: seconds on the film's clock (see `film`), when a player shows the frame.
        jpeg: the file's bytes.
    """

    time: float
    jpeg: bytes


def stills_of(
    path: Path, shots: Iterable[Span], on_progress: Callable[[float], None] | None = None
) -> Iterator[list[Still]]:
    """The frames of each shot: in the middle of each fifth of it, so that none lies on a cut.

    The film is read once, and no farther than has been asked for; so are the shots.

    Args:
        path: the film file.
        shots: in order of time, without overlaps.
        on_progress: called with the seconds read so far, after each picture.

    Returns:
        For each shot FRAMES stills; fewer where the shot has fewer frames, for each is sent once.

    Raises:
        FilmError: the file is no film, or ends before a shot does.
    """
    screen = _Screen(_told(frames(path), on_progress))
    renderer = Renderer()
    for shot in shots:
        shown = (screen.at(time) for time in times_of(shot))
        distinct = {frame.start: frame for frame in shown}
        yield [Still(frame.start, to_jpeg(frame, renderer)) for frame in distinct.values()]


def _told(film: Iterator[FilmFrame], on_progress: Callable[[float], None] | None) -> Iterator[FilmFrame]:
    for frame in film:
        if on_progress:
            on_progress(frame.end)
        yield frame


def times_of(shot: Span) -> list[float]:
    """Where to look: the middle of each fifth of the shot, in seconds of the film."""
    return [shot.start + (part + 0.5) / FRAMES * shot.duration for part in range(FRAMES)]


class _Screen:
    """Shows a film from its first picture on."""

    def __init__(self, film: Iterator[FilmFrame]) -> None:
        self._film = film
        self._current: FilmFrame | None = None
        self._following: FilmFrame | None = None

    def at(self, time: float) -> FilmFrame:
        """The picture that is on the screen then. The time never goes back."""
        if self._current is None:
            self._current, self._following = next(self._film), next(self._film, None)
        while self._following is not None and self._following.start <= time:
            self._current, self._following = self._following, next(self._film, None)
        return self._current


def to_jpeg(frame: FilmFrame, renderer: Renderer) -> bytes:
    """A frame as a person sees it: square pixels, upright, MAX_SIDE on the long side or less."""
    width, height = size_shown(frame)
    shrink = min(1.0, MAX_SIDE / max(width, height))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    buffer = io.BytesIO()
    shown = renderer.show(frame.picture, size, "BICUBIC", one_field=True)
    Image.fromarray(shown).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
