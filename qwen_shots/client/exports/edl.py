"""Edit decision lists in the form of CMX 3600: a picture track of cuts, at most 999 of them in a file.

OpenTimelineIO's CMX adapter writes no FCM line and so no drop frame, and does not split; it reads these in the tests.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from qwen_shots.client.exports.cutlist import CutList, Piece
from qwen_shots.client.exports.text import one_line
from qwen_shots.client.store import ShotRecord

MAX_EVENTS = 999
REEL_LETTERS = 8
AUXILIARY = "AX"  # a source that is no tape
RESERVED = frozenset({"", "BL", "BLACK", "BARS"})


def to_edls(cuts: CutList) -> list[str]:
    """One text for each MAX_EVENTS pieces; record timecodes go on from one to the next."""
    parts = [cuts.pieces[at : at + MAX_EVENTS] for at in range(0, len(cuts.pieces), MAX_EVENTS)] or [()]
    title = one_line(cuts.title)
    titles = [
        title if len(parts) == 1 else f"{title} ({number} of {len(parts)})" for number in range(1, 1 + len(parts))
    ]
    return [_edl(cuts, title, part) for title, part in zip(titles, parts, strict=True)]


def _edl(cuts: CutList, title: str, pieces: Sequence[Piece]) -> str:
    count = "DROP FRAME" if cuts.timebase.drop else "NON-DROP FRAME"
    events = (line for number, piece in enumerate(pieces, start=1) for line in _event(cuts, number, piece))
    return "\r\n".join([f"TITLE: {title}", f"FCM: {count}", "", *events, ""])


def _event(cuts: CutList, number: int, piece: Piece) -> list[str]:
    source, record = cuts.source_start + piece.source, cuts.record_start + piece.record
    frames = (source, source + piece.length, record, record + piece.length)
    times = " ".join(cuts.timebase.text(frame) for frame in frames)
    lines = [
        f"{number:03}  {_reel(cuts):<8} V     C        {times}",
        f"* FROM CLIP NAME: {one_line(cuts.film.path.name)}",
        _shot(piece.shot),
    ]
    if piece.shot.caption:
        lines.append(f"* COMMENT: {one_line(piece.shot.caption)}")
    lines += [f"* {one_line(name).upper()}: {score:.4f}" for name, score in piece.shot.scores.items()]
    return [*lines, f"* MODEL: {one_line(cuts.film.model)}"] if cuts.film.model else lines


def _shot(shot: ShotRecord) -> str:
    """Says exactly which pictures it is: where they come unevenly, several may share a timecode."""
    name = f": {one_line(shot.name)}" if shot.name else ""
    return f"* SHOT {shot.number}, PICTURES {shot.first_frame} TO {shot.end_frame}{name}"


def _reel(cuts: CutList) -> str:
    """The film's name as a tape's: eight capital letters and numbers."""
    reel = re.sub(r"[^A-Z0-9]", "", cuts.film.path.stem.upper())[:REEL_LETTERS]
    return AUXILIARY if reel in RESERVED else reel
