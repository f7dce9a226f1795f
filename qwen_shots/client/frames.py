"""The frames that stand for a shot: evenly spaced, upright, small, as JPEG."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from qwen_shots.client.film import FilmFrame, frames
from qwen_shots.client.shots import Shot

if TYPE_CHECKING:
    from av import VideoFrame

FRAMES = 5
MAX_SIDE = 1280
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


def stills_of(path: Path, shots: Sequence[Shot]) -> Iterator[list[Still]]:
    """The frames of each shot: in the middle of each fifth of it, so that none lies on a cut.

    The film is read once, and no farther than has been asked for.

    Args:
        path: the film file.
        shots: in order of time, without overlaps.

    Returns:
        For each shot FRAMES stills; fewer where the shot has fewer frames, for each is sent once.

    Raises:
        FilmError: the file is no film, or ends before a shot does.
    """
    shown = _shown_at((time for shot in shots for time in times_of(shot)), frames(path))
    for _ in shots:
        distinct = {frame.start: frame for frame in islice(shown, FRAMES)}
        yield [Still(frame.start, to_jpeg(frame)) for frame in distinct.values()]


def times_of(shot: Shot) -> list[float]:
    """Where to look: the middle of each fifth of the shot, in seconds of the film."""
    return [shot.start + (part + 0.5) / FRAMES * shot.duration for part in range(FRAMES)]


def _shown_at(times: Iterable[float], film: Iterator[FilmFrame]) -> Iterator[FilmFrame]:
    """For each time, in order, the frame that is on the screen then."""
    current = next(film)
    following = next(film, None)
    for time in times:
        while following is not None and following.start <= time:
            current, following = following, next(film, None)
        yield current


def to_jpeg(frame: FilmFrame) -> bytes:
    """A frame as a person sees it: square pixels, upright, MAX_SIDE on the long side or less."""
    picture = frame.picture
    width = picture.width * frame.aspect
    shrink = min(1.0, MAX_SIDE / float(max(width, Fraction(picture.height))))
    size = max(1, round(width * shrink)), max(1, round(picture.height * shrink))
    colour = "ITU709" if picture.colorspace == UNSPECIFIED and picture.height >= HD_HEIGHT else None
    rgb = picture.reformat(*size, "rgb24", src_colorspace=colour, interpolation="BICUBIC")
    buffer = io.BytesIO()
    _upright(Image.fromarray(rgb.to_ndarray()), picture).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _upright(image: Image.Image, picture: VideoFrame) -> Image.Image:
    """Turn a picture as the file's display matrix says, in whole quarters."""
    turns = {
        90: Image.Transpose.ROTATE_90,
        180: Image.Transpose.ROTATE_180,
        270: Image.Transpose.ROTATE_270,
    }
    turn = turns.get(round(picture.rotation / 90) * 90 % 360)
    return image if turn is None else image.transpose(turn)
