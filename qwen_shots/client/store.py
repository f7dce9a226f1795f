"""What is known of one film: a SQLite file in a folder, read here and written by `writer`.

For what is made of a film afterwards (ranking, exports, the report), this is all there is to know:

    with open_store(Path("out")) as store:
        store.film              # path, length, frame rate, start timecode, size of the picture
        store.complete          # whether all shots of the film are in
        for shot in store.shots():
            ...                 # in order of time: `analysed`, `failed` or neither yet; its scores, its error

Reading never waits for a running `analyze` and never disturbs it; `shots()` is one moment's truth. Times are seconds
from the film's first picture, `end` belonging to the next shot. Pictures are counted from 0 in the order in which they
are shown, whatever their times; in a film of a constant rate picture n is shown at n / frame_rate, and its timecode is
the start timecode plus n. Thumbnails are JPEG, upright with square pixels, THUMBNAIL_SIDE or less on the long side.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from qwen_shots.client.errors import NoStore
from qwen_shots.schemas import Evidence

if TYPE_CHECKING:
    from typing_extensions import Self

FILE_NAME = "shots.sqlite"
THUMBNAIL_SIDE = 256

# Tells our files from other SQLite files ("qshs"), and one version of the tables from the next.
APPLICATION_ID = 0x71736873
VERSION = 1

SCHEMA = """
CREATE TABLE film (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    path TEXT NOT NULL,
    size INTEGER NOT NULL,              -- bytes
    fingerprint TEXT NOT NULL,          -- SHA-256 of the file's size and both its ends
    duration REAL NOT NULL,             -- seconds; as the header says until all shots are known
    frame_rate TEXT NOT NULL,           -- pictures a second, numerator/denominator
    start_timecode TEXT,                -- as the file has it, ; before the frames for drop-frame
    width INTEGER NOT NULL,             -- as shown: upright, square pixels
    height INTEGER NOT NULL,
    cut_by TEXT NOT NULL,               -- how the shots were found: a detector's name, or a given list's fingerprint
    complete INTEGER NOT NULL           -- 1: all shots are in
) STRICT;
CREATE TABLE shot (
    number INTEGER PRIMARY KEY,         -- from 1; the shot_id on the wire
    start REAL NOT NULL,                -- seconds
    end REAL NOT NULL,
    first_frame INTEGER NOT NULL,
    end_frame INTEGER NOT NULL,         -- the next shot's first
    name TEXT                           -- as a given shot list calls it
) STRICT;
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
) STRICT;
"""

FILM = """
SELECT CAST(path AS BLOB), size, fingerprint, duration, frame_rate, start_timecode, width, height, cut_by FROM film
"""
ALL_SHOTS = """
SELECT shot.number, start, end, first_frame, end_frame, name, coalesce(attempts, 0) AS attempts, answered_at,
       caption, scores, evidence, error_type, error_title, error_detail, audio_class, thumbnail
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
        frame_rate: pictures a second, on average where they vary.
        start_timecode: `HH:MM:SS:FF`, or `HH:MM:SS;FF` where it is drop-frame; None where the file has none.
        width: of the picture as shown (upright, square pixels).
        height: likewise.
        cut_by: a detector's name, or a given shot list's fingerprint.
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
        start: seconds.
        end: seconds.
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
        path, size, fingerprint, duration, rate, *rest = next(self._rows(FILM))
        return FilmRecord(Path(os.fsdecode(path)), size, fingerprint, duration, Fraction(rate), *rest)

    @property
    def complete(self) -> bool:
        """Whether all shots of the film are in; their answers may be missing still."""
        (complete,) = next(self._rows("SELECT complete FROM film"))
        return bool(complete)

    def shots(self) -> list[ShotRecord]:
        """All shots known so far, in order of time."""
        return list(self._read(f"{ALL_SHOTS} ORDER BY shot.number"))

    def shot(self, number: int) -> ShotRecord | None:
        """One shot; None where there is none of that number."""
        return next(self._read(f"{ALL_SHOTS} WHERE shot.number = ?", number), None)

    def _read(self, query: str, *values: int) -> Iterator[ShotRecord]:
        return map(_record, self._rows(query, *values))

    def _rows(self, query: str, *values: int) -> Iterator[sqlite3.Row]:
        try:
            with closing(self._connection.cursor()) as cursor:
                cursor.row_factory = sqlite3.Row
                yield from cursor.execute(query, values)
        except sqlite3.Error as error:
            raise NoStore(f"the answers can't be read ({error})") from None


def _record(row: sqlite3.Row) -> ShotRecord:
    error = ErrorRecord(row["error_type"], row["error_title"], row["error_detail"]) if row["error_type"] else None
    return ShotRecord(
        number=row["number"],
        start=row["start"],
        end=row["end"],
        first_frame=row["first_frame"],
        end_frame=row["end_frame"],
        name=row["name"],
        caption=row["caption"],
        scores=json.loads(row["scores"] or "{}"),
        evidence=Evidence.model_validate_json(row["evidence"]) if row["evidence"] else None,
        error=error,
        audio_class=row["audio_class"],
        attempts=row["attempts"],
        answered_at=datetime.fromisoformat(row["answered_at"]) if row["answered_at"] else None,
        thumbnail=row["thumbnail"],
    )


def open_store(folder: Path) -> Store:
    """Open what is known of a film, to read it.

    Args:
        folder: the `--out` of `qwen-shots analyze`.

    Raises:
        NoStore: there is none, or it is not one that this version can read.
    """
    file = folder / FILE_NAME
    try:
        there = file.is_file()
    except OSError as error:
        raise NoStore(f"{file} can't be read ({error.strerror})") from None
    if not there:
        raise NoStore(f"there is no {FILE_NAME} in {folder}; `qwen-shots analyze FILM --out {folder}` makes it")
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        check_version(connection, file)
    except sqlite3.Error as error:
        raise NoStore(f"{file} can't be read ({error})") from None
    return Store(connection)


def check_version(connection: sqlite3.Connection, file: Path) -> None:
    """Make sure that the tables are those of this version.

    Raises:
        NoStore: they are not.
        sqlite3.Error: it is no SQLite file, or it can't be read.
    """
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
        raise NoStore(f"{file} knows no film yet")  # its writer has just made it, or was killed then
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise NoStore(f"{file} was not made by qwen-shots")
    if version != VERSION:
        raise NoStore(f"{file} has tables of version {version}, and this qwen-shots knows version {VERSION}")
