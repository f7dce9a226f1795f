"""Shots from somebody else's list: a table (CSV), an edit decision list (EDL, CMX 3600) or a timeline (OTIO).

A list speaks of the film's own time. Times are seconds from the first picture (`12.5`, `0:00:12.5`); timecodes
(`01:00:12:12`) count from the film's start timecode, or from 0 where it has none. Each is moved to the nearest picture.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from qwen_shots.client.describe import describe
from qwen_shots.client.film import picture_times
from qwen_shots.client.store import ShotRecord
from qwen_shots.client.timecode import as_marked
from qwen_shots.errors import InvalidInput

if TYPE_CHECKING:
    from opentimelineio.opentime import RationalTime, TimeRange
    from opentimelineio.schema import Clip, Timeline

# A table's columns, in lower case without blanks and underscores: ours, PySceneDetect's, and what people write. Seconds
# before timecodes, for they are exact.
START_COLUMNS = ("start", "starttime", "starttime(seconds)", "startseconds", "in", "sourcein", "starttimecode")
END_COLUMNS = ("end", "endtime", "endtime(seconds)", "endseconds", "out", "sourceout", "endtimecode")
NAME_COLUMNS = ("name", "shot", "shotid", "shotname", "scenenumber", "number")

Columns: TypeAlias = tuple[int, int, int | None]
"""Where start, end and name stand."""

_SECONDS = re.compile(r"\d+(\.\d+)?")
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d\d(?:\.\d+)?)")


class InvalidShotList(InvalidInput):
    """The list can't be read, or speaks of another film."""

    slug = "invalid-shot-list"
    title = "The shot list is not valid"


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of a list.

    Attributes:
        start: seconds from the film's first picture.
        end: seconds.
        name: None where the list gives none.
    """

    start: float
    end: float
    name: str | None


class FilmTime:
    """Turns what a list says into seconds from the film's first picture.

    Args:
        rate: the film's pictures a second.
        start_timecode: of its first picture.
    """

    def __init__(self, rate: Fraction, start_timecode: str | None) -> None:
        self._base = as_marked(rate, start_timecode or "")
        self.start = self._base.parse(start_timecode) if start_timecode else 0
        self.rate = rate

    def parse(self, text: str) -> float:
        """Seconds, a clock's time or a timecode.

        Raises:
            InvalidInput: it is none of them.
        """
        text = text.strip()
        if _SECONDS.fullmatch(text):
            return float(text)
        if found := _CLOCK.fullmatch(text):
            hours, minutes, seconds = found.groups()
            return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
        return float((self._base.parse(text) - self.start) / self.rate)

    def since_start(self, time: RationalTime) -> float:
        """Of a time that counts from timecode 0."""
        return float(time.to_seconds() - self.start / self.rate)


def read_shot_list(path: Path, film: Path) -> list[ShotRecord]:
    """Read a list; its ending says of which kind it is.

    Args:
        path: the list.
        film: the film that it speaks of.

    Returns:
        Its shots, in order of time.

    Raises:
        InvalidShotList: it can't be read, is empty, its shots overlap, or they lie outside of the film.
        FilmError: the film can't be read.
    """
    readers: dict[str, Callable[[Path, FilmTime], list[Listed]]] = {
        ".csv": _from_csv,
        ".edl": _from_edl,
        ".otio": _from_otio,
    }
    if path.suffix.lower() not in readers:
        raise InvalidShotList(f"a shot list ends in {', '.join(readers)}; {path.name} does not")
    known = describe(film, "")
    try:
        listed = readers[path.suffix.lower()](path, FilmTime(known.frame_rate, known.start_timecode))
    except OSError as error:
        raise InvalidShotList(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidShotList(f"{path.name} is not text in UTF-8") from None
    except csv.Error as error:
        raise InvalidShotList(f"{path.name} is no table ({error})") from None
    if not listed:
        raise InvalidShotList(f"{path.name} lists no shot")
    return _on_pictures(path.name, sorted(listed, key=lambda shot: shot.start), *picture_times(film))


def _on_pictures(name: str, listed: Sequence[Listed], starts: Sequence[float], end: float) -> list[ShotRecord]:
    """Move each shot to the film's pictures."""
    borders = [*starts, end]
    shots = []
    for number, shot in enumerate(listed, start=1):
        first, last = _nearest(borders, shot.start), _nearest(borders, shot.end)
        if shot.start < borders[0] - 1 or shot.end > end + 1:
            raise InvalidShotList(
                f"{name}: shot {number} lies at {shot.start:.2f} to {shot.end:.2f} s, and the film goes from 0 to "
                f"{end:.2f} s; timecodes count from the film's start timecode"
            )
        if last <= first:
            raise InvalidShotList(f"{name}: shot {number} at {shot.start:.2f} s holds no picture")
        shots.append(ShotRecord(number, borders[first], borders[last], first, last, shot.name))
    for one, other in pairwise(shots):
        if other.first_frame < one.end_frame:
            raise InvalidShotList(f"{name}: the shots at {one.start:.2f} s and {other.start:.2f} s overlap")
    return shots


def _nearest(times: Sequence[float], time: float) -> int:
    """The number of the nearest of some times in order."""
    after = min(bisect_left(times, time), len(times) - 1)
    return after - 1 if after and time - times[after - 1] < times[after] - time else after


# --- tables ----------------------------------------------------------------------------------------------------------


def _from_csv(path: Path, time: FilmTime) -> list[Listed]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = iter(csv.reader(file))
        columns = _columns(path.name, lines)
        return [_row(path.name, time, cells, columns) for cells in lines if any(cells)]


def _columns(file: str, lines: Iterator[list[str]]) -> Columns:
    """Where start, end and name stand; the header is the first line that tells (PySceneDetect sets one before it)."""
    for cells in lines:
        heads = [re.sub(r"[\s_]", "", cell.lower()) for cell in cells]
        start, end, name = (
            next((heads.index(column) for column in columns if column in heads), None)
            for columns in (START_COLUMNS, END_COLUMNS, NAME_COLUMNS)
        )
        if start is not None and end is not None:
            return start, end, name
    raise InvalidShotList(f"{file} has no header with the columns start and end")


def _row(file: str, time: FilmTime, cells: Sequence[str], columns: Columns) -> Listed:
    start, end, name = columns
    try:
        named = cells[name].strip() or None if name is not None else None
        return Listed(time.parse(cells[start]), time.parse(cells[end]), named)
    except IndexError:
        raise InvalidShotList(f"{file}: a line has {len(cells)} cells, fewer than the header") from None
    except InvalidInput as error:
        raise InvalidShotList(f"{file}: {error.detail}, or 12.5, or 0:00:12.5") from None


# --- timelines -------------------------------------------------------------------------------------------------------


def _from_edl(path: Path, time: FilmTime) -> list[Listed]:
    return _clips(_timeline(path, adapter_name="cmx_3600", rate=float(time.rate)), time)


def _from_otio(path: Path, time: FilmTime) -> list[Listed]:
    return _clips(_timeline(path, adapter_name="otio_json"), time)


def _timeline(path: Path, **how: Any) -> Timeline:
    import opentimelineio as otio

    text = path.read_text(encoding="utf-8-sig")
    try:
        timeline = otio.adapters.read_from_string(text, **how)
    except Exception as error:  # the adapters raise errors of many kinds, ValueError among them
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidShotList(f"{path.name} can't be read: {reason}") from None
    if not isinstance(timeline, otio.schema.Timeline):
        raise InvalidShotList(f"{path.name} holds no timeline")
    return timeline


def _shown(clip: Clip) -> TimeRange:
    from opentimelineio.exceptions import OTIOError

    try:
        shown = clip.trimmed_range()
    except OTIOError:
        raise InvalidShotList(f"the clip {clip.name!r} says neither where it begins nor where it ends") from None
    if shown.start_time.rate <= 0 or shown.duration.rate <= 0:
        raise InvalidShotList(f"the clip {clip.name!r} has times of a rate that is not above 0")
    return shown


def _clips(timeline: Timeline, time: FilmTime) -> list[Listed]:
    """The clips of the picture, each by its place in the film, not in the timeline."""
    listed = []
    for track in timeline.video_tracks():
        for clip in track.find_clips():
            shown = _shown(clip)
            whole = clip.media_reference.available_range if clip.media_reference else None
            # Where the medium says when it begins, that is its first picture.
            start = shown.start_time - whole.start_time if whole else shown.start_time
            seconds = float(start.to_seconds()) if whole else time.since_start(start)
            listed.append(Listed(seconds, seconds + float(shown.duration.to_seconds()), clip.name or None))
    return listed
