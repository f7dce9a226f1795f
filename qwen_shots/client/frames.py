"""The frames that stand for a shot: evenly spaced, upright, small, as JPEG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from qwen_shots.client.film import FilmFrame, frames
from qwen_shots.client.shots import Span

if TYPE_CHECKING:
    from av import VideoFrame

FRAMES = 5
# The server looks at 256 tokens of 28 x 28 pixels a picture (its model.max_frame_tokens): this much of any shape.
MAX_SIDE = 720
JPEG_QUALITY = 90

# From here on, films are made in BT.709 colour; FFmpeg takes BT.601 for all that do not say.
HD_HEIGHT = 720
UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Still:
    """One frame of a shot.

    Attributes:
        time: seconds from the film's first picture, when the frame comes on the screen.
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
    for shot in shots:
        shown = (screen.at(time) for time in times_of(shot))
        distinct = {frame.start: frame for frame in shown}
        yield [Still(frame.start, to_jpeg(frame)) for frame in distinct.values()]


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


def to_jpeg(frame: FilmFrame) -> bytes:
    """A frame as a person sees it: square pixels, upright, MAX_SIDE on the long side or less."""
    picture = frame.picture
    width, height = _square(frame)
    shrink = min(1.0, MAX_SIDE / max(width, height))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    colour = "ITU709" if picture.colorspace == UNSPECIFIED and picture.height >= HD_HEIGHT else None
    buffer = io.BytesIO()
    _upright(_progressive(picture, size, colour), picture).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def size_shown(frame: FilmFrame) -> tuple[int, int]:
    """Width and height of a frame as a person sees it: square pixels, upright."""
    width, height = _square(frame)
    return (height, round(width)) if _quarters(frame.picture) % 2 else (round(width), height)


def _square(frame: FilmFrame) -> tuple[float, int]:
    """Width and height in square pixels, before it is turned upright."""
    return float(frame.picture.width * frame.aspect), frame.picture.height


def _progressive(picture: VideoFrame, size: tuple[int, int], colour: str | None) -> Image.Image:
    """The picture in RGB and of this size; of an interlaced one the first field, so that nothing shows twice."""
    if not picture.interlaced_frame:
        rgb = picture.reformat(*size, "rgb24", src_colorspace=colour, interpolation="BICUBIC")
        return Image.fromarray(rgb.to_ndarray())
    lines = picture.reformat(format="rgb24", src_colorspace=colour).to_ndarray()
    return Image.fromarray(np.ascontiguousarray(lines[::2])).resize(size, Image.Resampling.BICUBIC)


def _upright(image: Image.Image, picture: VideoFrame) -> Image.Image:
    """Turn a picture as the file's display matrix says, in whole quarters."""
    turns = {
        1: Image.Transpose.ROTATE_90,
        2: Image.Transpose.ROTATE_180,
        3: Image.Transpose.ROTATE_270,
    }
    turn = turns.get(_quarters(picture))
    return image if turn is None else image.transpose(turn)


def _quarters(picture: VideoFrame) -> int:
    """How many quarters against the clock make it upright, 0..3."""
    return round(picture.rotation / 90) % 4
