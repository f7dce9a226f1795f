"""What a film's header says of it, for the store."""

from __future__ import annotations

import hashlib
import logging
import os
from fractions import Fraction
from pathlib import Path

from qwen_shots.client.errors import NotAFilm
from qwen_shots.client.film import Film, frames, open_film
from qwen_shots.client.rendering import colour_of, size_shown
from qwen_shots.client.store import FilmRecord
from qwen_shots.client.timecode import InvalidTimecode, as_marked, usual_rate

log = logging.getLogger(__name__)

# Of each end of the file: more than any header, and read in no time.
FINGERPRINT_BYTES = 1 << 20


def describe(path: Path, cut_by: str) -> FilmRecord:
    """A film as the store knows it.

    Args:
        path: the film file.
        cut_by: as `FilmRecord.cut_by`.

    Raises:
        FilmError: the file is no film.
    """
    with open_film(path) as film:
        duration, rate = float(film.duration), usual_rate(film.frame_rate)
        timecode = _timecode(film, rate)
    first = next(frames(path))
    width, height = size_shown(first)
    if colour_of(first.picture).doubtful:
        log.warning("%s: it doesn't say how its colours are coded; BT.709 is assumed, by its size", path.name)
    size, fingerprint = _identity(path)
    return FilmRecord(path.absolute(), size, fingerprint, duration, rate, timecode, width, height, cut_by)


def _timecode(film: Film, rate: Fraction) -> str | None:
    """Where MP4 and QuickTime, Matroska and MXF write it; None where it is none at the film's rate."""
    told = [film.video.metadata, film.container.metadata, *(stream.metadata for stream in film.container.streams)]
    for metadata in told:
        for name, value in metadata.items():
            if name.lower() == "timecode":
                return _checked(value, rate, film.path)
    return None


def _checked(timecode: str, rate: Fraction, path: Path) -> str | None:
    try:
        as_marked(rate, timecode).parse(timecode)
    except InvalidTimecode as error:
        log.warning("%s: its start timecode can't be used and counts as 00:00:00:00 (%s)", path.name, error.detail)
        return None
    return timecode


def _identity(path: Path) -> tuple[int, str]:
    """The file's size in bytes, and what tells it from other films."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.sha256(str(size).encode())
            for start in (0, max(0, size - FINGERPRINT_BYTES)):
                file.seek(start)
                digest.update(file.read(FINGERPRINT_BYTES))
    except OSError as error:
        raise NotAFilm(f"{path} can't be read: {error.strerror}") from None
    return size, digest.hexdigest()
