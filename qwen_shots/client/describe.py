"""What a film's header says of it, for the store."""

from __future__ import annotations

import hashlib
import logging
import os
from fractions import Fraction
from itertools import islice
from pathlib import Path

from qwen_shots.client.errors import NotAFilm
from qwen_shots.client.film import Film, frames, open_film
from qwen_shots.client.packets import PacketReader, fraction
from qwen_shots.client.rendering import colour_of, size_shown
from qwen_shots.client.store import FilmRecord
from qwen_shots.client.timecode import (
    AVERAGE_TOLERANCE,
    USUAL_RATES,
    InvalidTimecode,
    as_marked,
    timecode_rate,
    usual_rate,
)
from qwen_shots.client.timecode_track import timecode_track_rate

log = logging.getLogger(__name__)

# Of each end of the file: more than any header, and read in no time.
FINGERPRINT_BYTES = 1 << 20

FIRST_PICTURES = 300


def describe(path: Path, cut_by: str) -> FilmRecord:
    """A film as the store knows it.

    Args:
        path: the film file.
        cut_by: as `FilmRecord.cut_by`.

    Raises:
        FilmError: the file is no film.
    """
    with open_film(path) as film:
        duration, rate = float(film.duration), _nominal_rate(film)
        timecode = _timecode(film, rate)
    first = next(frames(path))
    width, height = size_shown(first)
    if colour_of(first.picture).doubtful:
        log.warning("%s: it doesn't say how its colours are coded; BT.709 is assumed, by its size", path.name)
    size, fingerprint = _identity(path)
    return FilmRecord(
        path.absolute(),
        size,
        fingerprint,
        duration,
        rate,
        timecode,
        width,
        height,
        cut_by,
        first_picture=first.start,
    )


def _nominal_rate(film: Film) -> Fraction:
    """The rate at which the pictures were meant to come, also where some are missing.

    FFmpeg guesses it. Where times fit no usual rate, as in a browser's WebM, its guess may be their time base, or a
    mean of dense and sparse parts; it counts only where the first pictures agree.
    """
    guessed = usual_rate(fraction(film.video.guessed_rate or film.frame_rate))
    if guessed in USUAL_RATES:
        return guessed
    first = _rate_at_first(film) or film.frame_rate
    agreed = all(abs(guessed - rate) <= AVERAGE_TOLERANCE * guessed for rate in (film.frame_rate, first))
    return guessed if agreed else timecode_rate(first)


def _rate_at_first(film: Film) -> Fraction | None:
    """Pictures a second among the first ones; None where their times don't tell."""
    packets = islice(PacketReader(film).packets(film.video), FIRST_PICTURES)
    times = sorted(packet.pts * fraction(packet.time_base) for packet in packets if packet.pts is not None)
    if len(times) < 2 or times[0] == times[-1]:
        return None
    return ((len(times) - 1) / (times[-1] - times[0])).limit_denominator(1001)


def _timecode(film: Film, rate: Fraction) -> str | None:
    """Where MP4 and QuickTime, Matroska and MXF write it; None where it is none at the film's rate."""
    known = [film.video.metadata, film.container.metadata, *(stream.metadata for stream in film.container.streams)]
    for metadata in known:
        for name, value in metadata.items():
            if name.lower() == "timecode":
                return _at_rate(value, timecode_rate(rate), film.path)
    return None


def _at_rate(timecode: str, rate: Fraction, path: Path) -> str | None:
    """The same moment of the day as a timecode of the film's rate.

    A film of 50 pictures a second may have a timecode of 25: `10:00:00:20` of its first picture is 10:00:00:40 there.
    """
    try:
        track = timecode_track_rate(path)
        counted = as_marked(rate if track is None else timecode_rate(track), timecode)
        here = as_marked(rate, timecode)
        return here.text(counted.parse(timecode) * here.nominal // counted.nominal)
    except InvalidTimecode as error:
        log.warning("%s: its start timecode can't be used and counts as 00:00:00:00 (%s)", path.name, error.detail)
        return None


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
