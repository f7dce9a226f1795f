"""Shots from somebody else's list: a table (CSV), an edit decision list (EDL, CMX 3600) or a timeline (OTIO).

A list is of the film's own time. Times are seconds as a player shows them (`12.5`, `0:00:12.5`); timecodes
(`01:00:12:12`) count from the film's start timecode, or from 0 where it has none. Each is moved to the nearest picture.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from qwen_shots.client.describe import describe
from qwen_shots.client.film import picture_times
from qwen_shots.client.lists.edl import from_edl
from qwen_shots.client.lists.film_time import FilmTime, InvalidShotList, Listed, nearest
from qwen_shots.client.lists.tables import from_table
from qwen_shots.client.lists.timelines import from_timeline
from qwen_shots.client.store import ShotRecord

log = logging.getLogger(__name__)

READERS: dict[str, Callable[[str, str, FilmTime], list[Listed]]] = {
    ".csv": from_table,
    ".edl": from_edl,
    ".otio": from_timeline,
}
# A list's last shot may end a little after the film.
TOLERANCE_SECONDS = 1.0
REEL_LETTERS = 8


def read_shot_list(path: Path, film: Path) -> list[ShotRecord]:
    """Read a list; its ending says of which kind it is.

    Args:
        path: the list.
        film: the film that it is of.

    Returns:
        Its shots, in order of time.

    Raises:
        InvalidShotList: it can't be read, is empty, its shots overlap, or they lie outside of the film.
        InvalidInput: a package that reads it is not installed.
        FilmError: the film can't be read.
    """
    reader = READERS.get(path.suffix.lower())
    if not reader:
        raise InvalidShotList(f"a shot list ends in {', '.join(READERS)}; {path.name} does not")
    text = _text(path)
    known = describe(film, "")
    starts, end = picture_times(film)
    borders = [*starts, end]

    def listed(start_timecode: str | None) -> list[Listed]:
        return _of_film(path.name, reader(path.name, text, FilmTime(known.frame_rate, start_timecode, borders)), film)

    shots = listed(known.start_timecode)
    if not shots:
        raise InvalidShotList(f"{path.name} lists no shot")
    if known.start_timecode and not any(_inside(shot, borders) for shot in shots):
        from_zero = listed(None)
        if all(_inside(shot, borders) for shot in from_zero):
            log.warning(
                "%s counts from 00:00:00:00, and the film from %s: taken from its first picture",
                path.name,
                known.start_timecode,
            )
            shots = from_zero
    return _on_pictures(path.name, shots, borders, known.start_timecode)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidShotList(f"{path} can't be read: {error.strerror}") from None
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise InvalidShotList(f"{path.name} is not text in UTF-8") from None


# --- which film ------------------------------------------------------------------------------------------------------


def _of_film(name: str, listed: list[Listed], film: Path) -> list[Listed]:
    """Leave out what is of other media. A list that names one medium only means this film, whatever its name."""
    media = {shot.medium for shot in listed if shot.medium}
    if len(media) <= 1:
        return listed
    others = {medium for medium in media if not _is_film(medium, film)}
    if others == media:
        raise InvalidShotList(f"{name} is of several media ({', '.join(sorted(media))}), and none is named {film.name}")
    kept = [shot for shot in listed if shot.medium in media - others]
    if len(kept) < len(listed):
        left = len(listed) - len(kept)
        log.warning("%s: what is not of %s is left out (%d shots)", name, ", ".join(sorted(media - others)), left)
    return kept


def _is_film(medium: str, film: Path) -> bool:
    """Whether a path, an address or a tape is called as the film, or as it without its ending."""
    file = PurePosixPath(unquote(medium).replace("\\", "/"))
    reel, stem = _letters(medium), _letters(film.stem)
    return bool(
        file.name.casefold() in {film.name.casefold(), film.stem.casefold()}
        or file.stem.casefold() == film.stem.casefold()
        or (reel and reel == stem)
        or (len(reel) == REEL_LETTERS and stem.startswith(reel))
    )


def _letters(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())


# --- on the film's pictures ------------------------------------------------------------------------------------------


def _inside(shot: Listed, borders: Sequence[float]) -> bool:
    return shot.start >= borders[0] - TOLERANCE_SECONDS and shot.end <= borders[-1] + TOLERANCE_SECONDS


def _on_pictures(
    name: str, listed: Sequence[Listed], borders: Sequence[float], start_timecode: str | None
) -> list[ShotRecord]:
    """Move each shot to the film's pictures."""
    ordered = sorted(listed, key=lambda shot: shot.start)
    shots = []
    for number, shot in enumerate(ordered, start=1):
        first, last = nearest(borders, shot.start), nearest(borders, shot.end)
        if not _inside(shot, borders):
            raise InvalidShotList(
                f"{name}, {shot.place}: the shot lies at {shot.start:.2f} to {shot.end:.2f} s, and the film goes from "
                f"0 to {borders[-1]:.2f} s; timecodes count from the film's start timecode, "
                f"{start_timecode or '00:00:00:00'}"
            )
        if last <= first:
            raise InvalidShotList(f"{name}, {shot.place}: the shot at {shot.start:.2f} s holds no picture")
        shots.append(ShotRecord(number, borders[first], borders[last], first, last, shot.name))
    for (one, this), (other, that) in pairwise(zip(shots, ordered, strict=True)):
        if other.first_frame < one.end_frame:
            raise InvalidShotList(
                f"{name}: the shots at {one.start:.2f} s ({this.place}) and {other.start:.2f} s ({that.place}) overlap"
            )
    return shots
