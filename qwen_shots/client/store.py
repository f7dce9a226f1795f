"""What is known of one film: a SQLite file in a folder, read here and written by `writer`.

For what is made of a film afterwards (ranking, exports, the report), this is all there is to know:

    with open_store(Path("out")) as store:
        store.film              # path, length, frame rate, start timecode, size of the picture
        store.complete          # whether all shots of the film are in
        for shot in store.shots():
            ...                 # in order of time: `analysed`, `failed` or neither yet; its scores, its error

Reading never waits for a running `analyze` and never disturbs it; `shots()` is one moment's truth. Times are seconds
from the film's first picture, `end` belonging to the next shot. Pictures are counted from 0 in the order in which they
are shown, whatever their times; in a film of a constant rate picture n is shown at first_picture + n / frame_rate, and
its timecode is the start timecode plus n. Thumbnails are JPEG, upright with square pixels, THUMBNAIL_SIDE or less on
the long side.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import TypeAdapter

from qwen_shots.active_picture import ActivePicture
from qwen_shots.client.errors import NoStore
from qwen_shots.schemas import Evidence

if TYPE_CHECKING:
    from typing_extensions import Self

Record = TypeVar("Record")

# What SQLite says of a file that is damaged inside; its words may repeat bytes of it, which need be no text.
UNREADABLE = (sqlite3.Error, UnicodeError)

DAMAGED = "the answers can't be read (the file is damaged)"

FILE_NAME = "shots.sqlite"
THUMBNAIL_SIDE = 256

# Tells our files from other SQLite files ("qshs"), and one version of the tables from the next.
APPLICATION_ID = 0x71736873
VERSION = 2

# What every SQLite file begins with, and where its first page keeps two numbers of four bytes, most significant first
# (https://www.sqlite.org/fileformat.html#the_database_header).
MAGIC = b"SQLite format 3\0"
SCHEMA_FORMAT_AT, APPLICATION_ID_AT, HEADER_BYTES = 44, 68, 100

# For SQLite from 3.26 on, which knows no STRICT: types are checked when a row is read.
SCHEMA = """
CREATE TABLE film (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    path TEXT NOT NULL,
    size INTEGER NOT NULL,              -- bytes
    fingerprint TEXT NOT NULL,          -- SHA-256 of the file's size and both its ends
    duration REAL NOT NULL,             -- seconds; as the header says until all shots are known
    frame_rate TEXT NOT NULL,           -- pictures a second, numerator/denominator
    start_timecode TEXT,                -- of the first picture, with ; before the frames for drop-frame
    first_picture REAL NOT NULL DEFAULT 0,  -- seconds, when it comes on the screen
    width INTEGER NOT NULL,             -- as shown: upright, square pixels
    height INTEGER NOT NULL,
    cut_by TEXT NOT NULL,               -- how the shots were found: a detector's name, or a given list's fingerprint
    complete INTEGER NOT NULL CHECK (complete IN (0, 1)),  -- 1: all shots are in
    model TEXT                          -- which one answered, NAME@FINGERPRINT; null: unknown
);
CREATE TABLE shot (
    number INTEGER PRIMARY KEY,         -- from 1; the shot_id on the wire
    start REAL NOT NULL,                -- seconds
    end REAL NOT NULL,
    first_frame INTEGER NOT NULL,
    end_frame INTEGER NOT NULL,         -- the next shot's first
    name TEXT,                          -- as a given shot list calls it
    transition TEXT CHECK (transition IN ('cut', 'dissolve', 'fade')),  -- what begins it; null: unknown
    active_picture TEXT,                -- JSON [left, top, right, bottom], shares 0..1; null: unknown
    motion_features TEXT,               -- JSON, as on the wire; null: not measured
    speech_ratio REAL CHECK (speech_ratio BETWEEN 0 AND 1)  -- share of the shot in which somebody speaks
);
CREATE TABLE answer (
    number INTEGER PRIMARY KEY REFERENCES shot,
    attempts INTEGER NOT NULL,          -- how often an answer about it was stored
    answered_at TEXT NOT NULL,          -- ISO 8601, UTC
    caption TEXT,                       -- null where it failed
    scores TEXT,                        -- JSON, attribute to 0..1
    evidence TEXT,                      -- JSON as on the wire; null without explain
    error_type TEXT,                    -- null where it worked
    error_title TEXT,
    error_detail TEXT,
    audio_class TEXT,                   -- null where there is no sound
    thumbnail BLOB                      -- JPEG
);
"""

# Shows the tables of version 1 as those of this one, to a reader only. A temporary view hides the table of its name.
VERSION_1_VIEWS = """
CREATE TEMP VIEW film AS SELECT path, size, fingerprint, duration, frame_rate, start_timecode, width, height, cut_by,
    complete, NULL AS model, 0 AS first_picture FROM main.film;
CREATE TEMP VIEW shot AS SELECT number, start, end, first_frame, end_frame, name, NULL AS transition,
    NULL AS active_picture, NULL AS motion_features, NULL AS speech_ratio FROM main.shot;
"""

FILM = """
SELECT CAST(path AS BLOB) AS path, size, fingerprint, duration, frame_rate, start_timecode, width, height, cut_by,
       model, first_picture
FROM film
"""
ALL_SHOTS = """
SELECT shot.number, start, end, first_frame, end_frame, name, transition, active_picture, motion_features, speech_ratio,
       coalesce(attempts, 0) AS attempts, answered_at, caption, scores, evidence, error_type, error_title, error_detail,
       audio_class, thumbnail
FROM shot LEFT JOIN answer ON answer.number = shot.number
"""


@dataclass(frozen=True, slots=True)
class FilmRecord:
    """The film.

    Attributes:
        path: where it was when it was analysed last.
        size: bytes.
        fingerprint: the same for the same film under another name.
        duration: seconds; before `Store.complete` as the file's header says.
        frame_rate: pictures a second; where they vary, the rate that is meant (30 for a phone's 29.4).
        start_timecode: of the first picture, `HH:MM:SS:FF`, or `HH:MM:SS;FF` where it is drop-frame; None where the
            file has none.
        width: of the picture as shown (upright, square pixels).
        height: likewise.
        cut_by: a detector's name, or a given shot list's fingerprint.
        model: which model answered, `NAME@FINGERPRINT` as the server says in X-Model; None where that is unknown.
        first_picture: seconds, when the first picture comes on the screen.
    """

    path: Path
    size: int
    fingerprint: str
    duration: float
    frame_rate: Fraction
    start_timecode: str | None
    width: int
    height: int
    cut_by: str
    model: str | None = None
    first_picture: float = 0.0


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """Why a shot has no analysis.

    Attributes:
        type: the problem's name, as on the wire, such as `urn:qwen-shots:error:invalid-picture`.
        title: the same for all problems of that type.
        detail: what was wrong this time.
    """

    type: str
    title: str
    detail: str


@dataclass(frozen=True, slots=True)
class ShotRecord:
    """A shot and what is known of it.

    Attributes:
        number: from 1, in order of time; its `shot_id` on the wire.
        start: seconds on the film's clock (see `film`), when a player shows its first picture.
        end: seconds, when the next shot starts or the film ends.
        first_frame: the number of its first picture, from 0.
        end_frame: the number of the next shot's first picture.
        name: as a given shot list calls it; None where the shots were found.
        caption: None unless analysed.
        scores: attribute to 0..1, in the server's order; empty unless analysed.
        evidence: None unless asked for.
        error: None unless it failed.
        audio_class: silent, dialog, music or ambiance; None where the film has no sound there, or before an answer.
        attempts: how many answers or errors were stored for it.
        answered_at: when the last one was, in UTC; None before.
        thumbnail: a JPEG of its middle; None before an answer.
        transition: what begins it: `cut`, `dissolve` or `fade`; None where that is unknown, as in a given shot list.
        active_picture: its picture without bars; None where they were not looked for.
        motion_features: its motion as it was sent, measured over all its pictures; None where it was not measured.
        speech_ratio: share 0..1 of it in which somebody speaks; None where that was not measured.
    """

    number: int
    start: float
    end: float
    first_frame: int
    end_frame: int
    name: str | None = None
    caption: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    evidence: Evidence | None = None
    error: ErrorRecord | None = None
    audio_class: str | None = None
    attempts: int = 0
    answered_at: datetime | None = None
    thumbnail: bytes | None = None
    transition: Literal["cut", "dissolve", "fade"] | None = None
    active_picture: ActivePicture | None = None
    motion_features: Mapping[str, Any] | None = None
    speech_ratio: float | None = None

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.end - self.start

    @property
    def analysed(self) -> bool:
        """Whether it has a caption and scores."""
        return self.caption is not None

    @property
    def failed(self) -> bool:
        """Whether the last try ended in an error."""
        return self.error is not None


class Store:
    """A film's folder, opened for reading. A file that is damaged inside raises `NoStore` where it is read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()

    @property
    def film(self) -> FilmRecord:
        """The film."""
        for film in self._read(_FILM, _film_values, FILM):
            return film
        raise NoStore(DAMAGED)

    @property
    def complete(self) -> bool:
        """Whether all shots of the film are in; their answers may be missing still."""
        return any(complete for (complete,) in self._rows("SELECT complete FROM film"))

    def shots(self) -> list[ShotRecord]:
        """All shots known so far, in order of time."""
        return list(self._read(_SHOT, _shot_values, f"{ALL_SHOTS} ORDER BY shot.number"))

    def shot(self, number: int) -> ShotRecord | None:
        """One shot; None where there is none of that number."""
        return next(self._read(_SHOT, _shot_values, f"{ALL_SHOTS} WHERE shot.number = ?", number), None)

    def _read(
        self, kind: TypeAdapter[Record], values: Callable[[sqlite3.Row], dict[str, Any]], query: str, *of: int
    ) -> Iterator[Record]:
        try:
            for row in self._rows(query, *of):
                yield kind.validate_python(values(row))
        except (ValueError, ArithmeticError, RecursionError, TypeError):
            raise NoStore(DAMAGED) from None

    def _rows(self, query: str, *values: int) -> Iterator[sqlite3.Row]:
        try:
            with closing(self._connection.cursor()) as cursor:
                cursor.row_factory = sqlite3.Row
                yield from cursor.execute(query, values)
        except UNREADABLE as error:
            raise NoStore(f"the answers can't be read ({error})") from None


_FILM = TypeAdapter(FilmRecord)
_SHOT = TypeAdapter(ShotRecord)


def _film_values(row: sqlite3.Row) -> dict[str, Any]:
    return {**dict(row), "path": Path(os.fsdecode(row["path"])), "frame_rate": Fraction(row["frame_rate"])}


def _shot_values(row: sqlite3.Row) -> dict[str, Any]:
    error = ErrorRecord(row["error_type"], row["error_title"], row["error_detail"]) if row["error_type"] else None
    return {
        **dict(row),
        "scores": json.loads(row["scores"] or "{}"),
        "evidence": Evidence.model_validate_json(row["evidence"]) if row["evidence"] else None,
        "error": error,
        "active_picture": ActivePicture(*json.loads(row["active_picture"])) if row["active_picture"] else None,
        "motion_features": json.loads(row["motion_features"] or "null"),
    }


def open_store(folder: Path | str) -> Store:
    """Open what is known of a film, to read it. The folder may be read-only.

    Args:
        folder: the `--out` of `qwen-shots analyze`.

    Raises:
        NoStore: there is none, or it is not one that this version can read.
    """
    folder = Path(folder)
    file = folder / FILE_NAME
    try:
        there = file.is_file()
    except OSError as error:
        raise NoStore(f"{file} can't be read ({error.strerror})") from None
    if not there:
        raise NoStore(f"there is no {FILE_NAME} in {folder}; `qwen-shots analyze FILM --out {folder}` makes it")
    check_header(file)
    try:
        connection = _connected(file)
        if check_version(connection, file) < VERSION:
            connection.executescript(VERSION_1_VIEWS)
    except (*UNREADABLE, OSError) as error:
        raise NoStore(f"{file} can't be read ({error})") from None
    return Store(connection)


def _connected(file: Path) -> sqlite3.Connection:
    """Open a connection for reading.

    SQLite makes files beside one with a write-ahead log, also to read it, and removes them only where it may write; so
    it may, and the tables are only read. In a read-only folder the file is opened as immutable; and when the log holds
    answers, because the writer was killed, a copy is read.
    """
    address = file.absolute().as_uri()
    log = file.with_name(f"{file.name}-wal")
    connection = sqlite3.connect(f"{address}?mode=rw", uri=True)
    try:
        connection.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.OperationalError as error:
        connection.close()
        if "locked" in str(error):
            raise
    else:
        return connection
    if not (log.exists() and log.stat().st_size):
        return sqlite3.connect(f"{address}?immutable=1", uri=True)
    with TemporaryDirectory() as folder:
        for each in (file, log):
            shutil.copy(each, folder)
        copy = sqlite3.connect(":memory:")
        with closing(sqlite3.connect(Path(folder, file.name))) as connection:
            connection.backup(copy)
    return copy


def check_header(file: Path) -> None:
    """Check that a file is ours or empty, before SQLite changes anything in it or beside it.

    Raises:
        NoStore: it is not, or it can't be read.
    """
    try:
        with file.open("rb") as opened:
            header = opened.read(HEADER_BYTES)
    except OSError as error:
        raise NoStore(f"{file} can't be read ({error.strerror})") from None
    if not header:
        return
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise NoStore(f"{file} can't be read (it is not a database)")
    # Of a writer that was killed early, all may still be in the write-ahead log: no table, and no number.
    schema_format, application = (header[at : at + 4] for at in (SCHEMA_FORMAT_AT, APPLICATION_ID_AT))
    if any(schema_format) and application != APPLICATION_ID.to_bytes(4, "big"):
        raise NoStore(f"{file} was not made by qwen-shots")


def check_version(connection: sqlite3.Connection, file: Path) -> int:
    """The tables' version: this one or an earlier one.

    Raises:
        NoStore: they are not ours, or of a later version.
        sqlite3.Error: it is no SQLite file, or it can't be read.
    """
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
        raise NoStore(f"{file} knows no film yet")  # its writer has just made it, or was killed then
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise NoStore(f"{file} was not made by qwen-shots")
    if not 1 <= version <= VERSION:
        raise NoStore(f"{file} has tables of version {version}, and this qwen-shots knows versions 1 to {VERSION}")
    return int(version)
