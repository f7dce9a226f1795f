"""Shots as pieces of film laid one after another, in frames: what EDL, OTIO and FCPXML are written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qwen_shots.client.store import FilmRecord, ShotRecord
from qwen_shots.client.timecode import Timebase, as_marked, timecode_rate

SELECTION_START = "01:00:00:00"


@dataclass(frozen=True, slots=True)
class Piece:
    """A shot's place in the film and in what is made of it.

    Attributes:
        shot: the shot.
        source: its first frame, counted from the film's first.
        record: where it is laid, counted from the first frame of what is made.
        length: frames, at least one.
    """

    shot: ShotRecord
    source: int
    record: int
    length: int


@dataclass(frozen=True, slots=True)
class CutList:
    """Pieces in order, without overlaps.

    Attributes:
        title: one line.
        film: where the pieces are from.
        timebase: how frames are counted, in the film and in what is made.
        source_start: the timecode of the film's first frame, as a frame number.
        record_start: the timecode of the first frame of what is made, likewise.
        pieces: in order of `record`.
    """

    title: str
    film: FilmRecord
    timebase: Timebase
    source_start: int
    record_start: int
    pieces: tuple[Piece, ...]

    @property
    def film_length(self) -> int:
        """The film's length in frames."""
        return frame_of(self.film, self.film.duration, self.timebase)

    @property
    def length(self) -> int:
        """Frames, with gaps."""
        return max((piece.record + piece.length for piece in self.pieces), default=0)


def timebase_of(film: FilmRecord, *, drop: bool | None = None) -> Timebase:
    """How the film's frames are counted: as its own timecode says, unless `drop` is given.

    Raises:
        InvalidInput: drop-frame is wanted at a rate that has none.
    """
    rate = timecode_rate(film.frame_rate)
    return as_marked(rate, film.start_timecode or "") if drop is None else Timebase(rate, drop)


def frame_of(film: FilmRecord, seconds: float, timebase: Timebase) -> int:
    """The number of the frame at a time of the film, counted from the film's first.

    By the clock, in a film of uneven rate too: that is how editing programs count.
    """
    return timebase.frame_at(seconds - film.first_picture)


def source_start(film: FilmRecord, timebase: Timebase) -> int:
    """The frame number of the film's first picture; its timecode is read as it is marked."""
    if film.start_timecode is None:
        return 0
    return as_marked(timebase.rate, film.start_timecode).parse(film.start_timecode)


def film_cuts(film: FilmRecord, shots: Sequence[ShotRecord], timebase: Timebase, start: str | None = None) -> CutList:
    """The whole film as it is: each shot is laid where it is in the film.

    Raises:
        InvalidTimecode: the start is none.
    """
    pieces = [_piece(film, shot, timebase) for shot in shots]
    first = source_start(film, timebase) if start is None else timebase.parse(start)
    kept = tuple(piece for piece in pieces if piece.length)
    return CutList(film.path.stem, film, timebase, source_start(film, timebase), first, kept)


def selected_cuts(
    film: FilmRecord, shots: Sequence[ShotRecord], timebase: Timebase, start: str = SELECTION_START
) -> CutList:
    """Shots in the order given, one right after another.

    Raises:
        InvalidTimecode: the start is none.
    """
    pieces: list[Piece] = []
    end = 0
    for piece in (_piece(film, shot, timebase) for shot in shots):
        if piece.length:
            pieces.append(Piece(piece.shot, piece.source, end, piece.length))
            end += piece.length
    title = f"{film.path.stem} selection"
    return CutList(title, film, timebase, source_start(film, timebase), timebase.parse(start), tuple(pieces))


def _piece(film: FilmRecord, shot: ShotRecord, timebase: Timebase) -> Piece:
    """May be of no frame at all, where pictures follow each other faster than numbers."""
    first = frame_of(film, shot.start, timebase)
    return Piece(shot, first, first, frame_of(film, shot.end, timebase) - first)
