"""Edit decision lists in the form of CMX 3600, as editing programs write it.

Lines are read by their words, not by their columns: names of tapes are longer than eight letters. OpenTimelineIO's
adapter knows no FCM lines, no rates beside those of television and no comment before the first event; pycmx knows no
speed changes. Both serve the tests.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from qwen_shots.client.lists.film_time import FilmTime, InvalidShotList, Listed
from qwen_shots.client.timecode import can_drop
from qwen_shots.errors import InvalidInput

log = logging.getLogger(__name__)

# A timecode, or a number of frames.
_TIME = r"(\d\d:\d\d:\d\d[:;.,]\d\d\d?|\d{1,9})"
# Number, reel, channels, edit, its length, source in and out, record in and out.
_EVENT = re.compile(
    r"(?i)(\d+)\s+(?:(\S.*?)\s+)?(NONE|B|[AV][AV0-9/]*)\s+(C|D|W\d*|K(?:\s?[BO])?)\s+(?:\d+\s+)?"
    rf"{_TIME}\s+{_TIME}\s+{_TIME}\s+{_TIME}"
)
# Reel, frames a second, where it begins.
_SPEED = re.compile(rf"(?i)M2\s+(?:(\S.*?)\s+)?(-?\d+(?:\.\d+)?)\s+{_TIME}")
_DROP = re.compile(r"(?i)FCM:\s*DROP")
_CLIP = re.compile(r"(?i)\*?\s*(FROM CLIP NAME|TO CLIP NAME|SOURCE FILE):\s*(.*)")
_FREEZE = re.compile(r"(?i)\*\s*FREEZE FRAME")
# What `exports.edl` writes.
_PICTURES = re.compile(r"\* SHOT \d+, PICTURES (\d{1,9}) TO (\d{1,9})(?:: (.*))?")
_FILE_NAME = re.compile(r".+\.(?=\w*[A-Za-z])\w{2,4}")

BLACK = frozenset({"BL", "BLK", "BLACK", "BARS"})
# M2 gives frames a second to a tenth.
SPEED_STEP = 0.1


@dataclass(slots=True)
class _Edit:
    """A line of an event, with what the lines below it say.

    Attributes:
        line: its number in the file.
        number: the event's.
        reel: the tape; empty where there is none.
        picture: whether it is of the picture.
        kind: `C` for a cut, `D` a dissolve, `W001` a wipe.
        times: source in and out, record in and out.
        drop: whether the list says that timecodes drop frames.
        speed: frames a second and where it begins.
        frozen: whether it shows one picture.
        clips: FROM CLIP NAME, TO CLIP NAME and SOURCE FILE.
        pictures: the film's first and the one after the last, and the shot's name, of a list of ours.
    """

    line: int
    number: str
    reel: str
    picture: bool
    kind: str
    times: tuple[str, str, str, str]
    drop: bool | None
    speed: tuple[float, str] | None = None
    frozen: bool = False
    clips: dict[str, str] = field(default_factory=dict)
    pictures: tuple[int, int, str | None] | None = None


def from_edl(file: str, text: str, time: FilmTime) -> list[Listed]:
    """The picture's events, each by its place in the film, not in the cut.

    Raises:
        InvalidShotList: a line can't be read, or says what no list of shots can hold.
    """
    listed = []
    events = list(_events(file, text))
    files = _files_of_reels(edit for event in events for edit in event if edit.picture)
    if any(edit.drop for event in events for edit in event) and not can_drop(time.base.rate):
        log.warning("%s says DROP FRAME, which does not exist at %s frames a second", file, time.base.named)
    for event in events:
        edits = [edit for edit in event if edit.picture]
        for number, edit in enumerate(edits, start=1):
            if edit.reel.upper() in BLACK:
                continue
            try:
                shot = _listed(edit, time, files)
            except InvalidInput as error:
                raise _unreadable(file, edit.line, error.detail) from None
            # A transition's first line says which shot it comes from; it is of no length.
            if shot.start != shot.end or number == len(edits):
                listed.append(shot)
    return listed


def _unreadable(file: str, line: int, reason: str) -> InvalidShotList:
    return InvalidShotList(f"{file} can't be read: line {line}: {reason}")


# --- lines -----------------------------------------------------------------------------------------------------------


def _events(file: str, text: str) -> Iterator[list[_Edit]]:
    """Lines of the same number, one after another, are one event."""
    event: list[_Edit] = []
    drop: bool | None = None
    for number, words in enumerate(map(str.split, re.split(r"\r\n|\r|\n", text)), start=1):
        line = " ".join(words)  # long runs of blanks would cost the expressions minutes
        if line[:4].upper() == "FCM:":
            drop = bool(_DROP.match(line))
        elif line[:1].isdigit():
            edit = _edit(file, number, line, drop=drop)
            if event and event[0].number != edit.number:
                yield event
                event = []
            event.append(edit)
        elif line[:2].upper() == "M2":
            _set_speed(file, number, line, event)
        else:
            _comment(line, event)
    yield event


def _edit(file: str, number: int, line: str, *, drop: bool | None) -> _Edit:
    found = _EVENT.fullmatch(line)
    if not found:
        raise _unreadable(
            file, number, "no event of CMX 3600 (number, reel, channels, edit, source in and out, record in and out)"
        )
    event, reel, channels, kind, *times = found.groups()
    source_in, source_out, record_in, record_out = times
    return _Edit(
        number,
        event,
        reel or "",
        channels.upper() == "B" or "V" in channels.upper(),
        kind.upper(),
        (source_in, source_out, record_in, record_out),
        drop,
    )


def _set_speed(file: str, number: int, line: str, event: list[_Edit]) -> None:
    found = _SPEED.fullmatch(line)
    if not found:
        raise _unreadable(file, number, "no speed change (M2, reel, frames a second, timecode)")
    reel, speed, begins = found.groups()
    # Of a transition's two lines, the one of its reel, or the one that has a length.
    edits = [edit for edit in event if edit.picture and edit.reel == (reel or "")]
    edits = [edit for edit in edits if edit.times[0] != edit.times[1]] if len(edits) > 1 else edits
    if len(edits) > 1:
        raise _unreadable(file, number, f"it is not clear which line of event {event[0].number} changes its speed")
    for edit in edits:
        edit.speed = float(speed), begins


def _comment(line: str, event: list[_Edit]) -> None:
    for edit in event:
        if found := _CLIP.match(line):
            edit.clips[found[1].upper()] = found[2]
        elif _FREEZE.match(line):
            edit.frozen = True
        elif found := _PICTURES.fullmatch(line):
            edit.pictures = int(found[1]), int(found[2]), found[3]


# --- events ----------------------------------------------------------------------------------------------------------


def _listed(edit: _Edit, time: FilmTime, files: Mapping[str, set[str]]) -> Listed:
    if edit.kind.startswith("K"):
        raise InvalidShotList("keys (K) show two pictures at once; cuts, dissolves and wipes can be read")
    first, last = _stretch(edit, time)
    start_picture, end_picture, name = edit.pictures or (None, None, _name(edit))
    start = time.seconds(first, start_picture)
    frozen = edit.frozen or (edit.speed is not None and edit.speed[0] == 0)
    end = time.picture_after(start) if frozen else time.seconds(last, end_picture)
    return Listed(start, end, name, f"line {edit.line}", _medium(edit, files))


def _stretch(edit: _Edit, time: FilmTime) -> tuple[int, int]:
    """The film's frames that an event shows: its first, and the one after its last."""
    first, last = (_frame(edit, text, time) for text in edit.times[:2])
    source, record = last - first, _record_length(edit, time)
    if edit.frozen or (edit.speed is not None and edit.speed[0] == 0):
        return first, first
    if edit.speed is None:
        if source != record:
            raise InvalidShotList(f"{source} frames of the film take {record} in the cut, and no M2 line says why")
        return first, last
    speed, begins = edit.speed
    rate = float(time.base.rate)
    shown = record * abs(speed) / rate
    if abs(source - shown) <= 1 + record * SPEED_STEP / rate:
        if speed < 0 and last - _frame(edit, begins, time) not in {0, 1}:
            raise InvalidShotList("it is played backwards, but not from its end; which part it shows is not clear")
        return first, last
    if source == record and speed > 0:
        return first, first + round(shown)
    raise InvalidShotList(
        f"{source} frames of the film can't take {record} frames in the cut at {speed:g} frames a second"
    )


def _frame(edit: _Edit, text: str, time: FilmTime) -> int:
    """A source time as the number of the film's frame."""
    return int(text) if text.isdigit() else time.frame(text, drop=edit.drop)


def _record_length(edit: _Edit, time: FilmTime) -> int:
    """Frames in the cut, which may pass midnight."""
    begins, ends = edit.times[2:]
    if begins.isdigit() and ends.isdigit():
        return int(ends) - int(begins)
    base = time.base_of(begins, drop=edit.drop)
    return (base.parse(ends) - base.parse(begins)) % base.frames_a_day


def _clip(edit: _Edit) -> str | None:
    """The clip's name. In a transition, TO names the one that comes."""
    names = ("FROM CLIP NAME",) if edit.kind == "C" else ("TO CLIP NAME", "FROM CLIP NAME")
    return next((edit.clips[name] for name in names if edit.clips.get(name)), None)


def _name(edit: _Edit) -> str:
    return _clip(edit) or edit.number


def _file(edit: _Edit) -> str | None:
    """The file that the lines below the event name."""
    clip = _clip(edit)
    return edit.clips.get("SOURCE FILE") or (clip if clip and _FILE_NAME.fullmatch(clip) else None)


def _files_of_reels(edits: Iterable[_Edit]) -> dict[str, set[str]]:
    files: defaultdict[str, set[str]] = defaultdict(set)
    for edit in edits:
        if file := _file(edit):
            files[edit.reel].add(file)
    return files


def _medium(edit: _Edit, files: Mapping[str, set[str]]) -> str | None:
    """The event's file; where it names none, the only one of its reel's other events; else the reel."""
    if file := _file(edit):
        return file
    of_reel = files.get(edit.reel, set())
    return next(iter(of_reel)) if len(of_reel) == 1 else edit.reel or None
