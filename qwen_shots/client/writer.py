"""Writes what is known of a film, one answer after another, so that nothing answered is ever lost."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from qwen_shots.active_picture import ActivePicture
from qwen_shots.client.errors import CannotStore, OtherFilm, StoreInUse
from qwen_shots.client.store import (
    APPLICATION_ID,
    FILE_NAME,
    SCHEMA,
    UNREADABLE,
    VERSION,
    FilmRecord,
    ShotRecord,
    Store,
    check_header,
    check_version,
    open_store,
)
from qwen_shots.schemas import Analysis, BatchError

if TYPE_CHECKING:
    from typing_extensions import Self

LOCK_NAME = "writer.lock"

INSERT_FILM = """
INSERT INTO film (id, path, size, fingerprint, duration, frame_rate, start_timecode, width, height, cut_by, model,
                  first_picture, complete)
VALUES (1, CAST(? AS TEXT), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)
"""
INSERT_SHOT = """
INSERT INTO shot (number, start, end, first_frame, end_frame, name, transition, active_picture, motion_features,
                  speech_ratio)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (number) DO NOTHING
"""
# What was not measured this time stays as it was.
SET_MEASURES = """
UPDATE shot SET active_picture = coalesce(?, active_picture), motion_features = coalesce(?, motion_features),
                speech_ratio = coalesce(?, speech_ratio)
WHERE number = ?
"""
INSERT_ANSWER = """
INSERT INTO answer (number, attempts, answered_at, caption, scores, evidence, error_type, error_title, error_detail,
                    audio_class, thumbnail)
VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (number) DO UPDATE SET
    attempts = attempts + 1, answered_at = excluded.answered_at, caption = excluded.caption, scores = excluded.scores,
    evidence = excluded.evidence, error_type = excluded.error_type, error_title = excluded.error_title,
    error_detail = excluded.error_detail, audio_class = excluded.audio_class, thumbnail = excluded.thumbnail
"""

# Version 1 has STRICT tables, which SQLite before 3.37 can't read, so they are made anew and not just widened.
FROM_VERSION_1 = f"""
ALTER TABLE film RENAME TO old_film;
ALTER TABLE shot RENAME TO old_shot;
ALTER TABLE answer RENAME TO old_answer;
{SCHEMA.strip()}
INSERT INTO film (id, path, size, fingerprint, duration, frame_rate, start_timecode, width, height, cut_by, complete)
    SELECT id, path, size, fingerprint, duration, frame_rate, start_timecode, width, height, cut_by, complete
    FROM old_film;
INSERT INTO shot (number, start, end, first_frame, end_frame, name)
    SELECT number, start, end, first_frame, end_frame, name FROM old_shot;
INSERT INTO answer (number, attempts, answered_at, caption, scores, evidence, error_type, error_title, error_detail,
                    audio_class, thumbnail)
    SELECT number, attempts, answered_at, caption, scores, evidence, error_type, error_title, error_detail,
           audio_class, thumbnail FROM old_answer;
DROP TABLE old_answer;
DROP TABLE old_shot;
DROP TABLE old_film;
PRAGMA user_version = {VERSION};
"""  # noqa: S608 # all of it is ours


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that came, with what was seen and heard on the way.

    Attributes:
        number: the shot's.
        answer: the server's.
        audio_class: as `ShotRecord.audio_class`.
        thumbnail: a small JPEG.
        active_picture: as `ShotRecord.active_picture`; None leaves what is known, as with the next two.
        motion_features: as `ShotRecord.motion_features`.
        speech_ratio: as `ShotRecord.speech_ratio`.
    """

    number: int
    answer: Analysis | BatchError
    audio_class: str | None
    thumbnail: bytes | None
    active_picture: ActivePicture | None = None
    motion_features: Mapping[str, Any] | None = None
    speech_ratio: float | None = None


class StoreWriter(Store):
    """A film's folder, opened for writing: by one process at a time, by any of its threads.

    What a method was given is on the disk when it returns. A full disk raises `CannotStore` and changes nothing.
    """

    def __init__(self, connection: sqlite3.Connection, lock: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._lock = lock
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the files go, after what is being written."""
        with self._turn:
            super().close()
        self._lock.close()

    def add_shots(self, shots: Sequence[ShotRecord]) -> None:
        """Add shots where their numbers are not known yet; their answers are not taken."""
        rows = [
            (s.number, s.start, s.end, s.first_frame, s.end_frame, s.name, s.transition, *_measures(s)) for s in shots
        ]
        with self._transaction():
            self._connection.executemany(INSERT_SHOT, rows)

    def set_complete(self, duration: float) -> None:
        """All shots are in, and the film is so many seconds long."""
        with self._transaction():
            self._connection.execute("UPDATE film SET complete = 1, duration = ?", (duration,))

    def add_answers(self, answers: Sequence[Answered]) -> None:
        """Store answers, in place of what was known of their shots."""
        moment = datetime.now(timezone.utc).isoformat()
        with self._transaction():
            self._connection.executemany(INSERT_ANSWER, [_row(each, moment) for each in answers])
            self._connection.executemany(SET_MEASURES, [(*_measures(each), each.number) for each in answers])

    def set_model(self, model: str) -> None:
        """Store which model all answers are from, also those that will come."""
        with self._transaction():
            self._connection.execute("UPDATE film SET model = ?", (model,))

    def begin_again(self, model: str | None) -> None:
        """Delete all answers; those that will come are from this model."""
        with self._transaction():
            self._connection.execute("DELETE FROM answer")
            self._connection.execute("UPDATE film SET model = ?", (model,))

    def cut_anew(self, film: FilmRecord) -> None:
        """Delete all shots, none of which has an answer, to find them in another way."""
        with self._transaction():
            self._connection.execute("DELETE FROM shot")
            self._connection.execute(
                "UPDATE film SET cut_by = ?, duration = ?, complete = 0", (film.cut_by, film.duration)
            )

    def film_moved(self, path: Path) -> None:
        """The film lies elsewhere now."""
        with self._transaction():
            self._connection.execute("UPDATE film SET path = CAST(? AS TEXT)", (os.fsencode(path),))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._turn, self._connection:
                yield
        except UNREADABLE as error:
            raise CannotStore(f"answers can't be stored ({error})") from None


def _row(answered: Answered, moment: str) -> tuple[int | str | bytes | None, ...]:
    told: tuple[str | None, ...]
    match answered.answer:
        case Analysis(caption=caption, attributes=scores, evidence=evidence):
            told = (caption, json.dumps(scores), evidence.model_dump_json() if evidence else None, None, None, None)
        case BatchError(type=kind, title=title, detail=detail):
            told = (None, None, None, kind, title, detail)
    return (answered.number, moment, *told, answered.audio_class, answered.thumbnail)


def _measures(of: ShotRecord | Answered) -> tuple[str | None, str | None, float | None]:
    """The columns of what was measured."""
    active, motion = of.active_picture, of.motion_features
    return json.dumps(astuple(active)) if active else None, json.dumps(motion) if motion else None, of.speech_ratio


def write_store(folder: Path, film: FilmRecord) -> StoreWriter:
    """Open a film's folder for writing; it is made where there is none.

    Args:
        folder: where to.
        film: which film this is about to be.

    Raises:
        StoreInUse: another process writes there.
        OtherFilm: it holds another film's answers, or this one's cut in another way.
        NoStore: the file there is not one that this version can use.
        CannotStore: no space, no permission, no folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder)
    except (OSError, *UNREADABLE) as error:
        raise CannotStore(f"nothing can be stored in {folder} ({_reason(error)})") from None
    try:
        writer = StoreWriter(_connected(folder, film), lock)
        if writer.film.cut_by != film.cut_by:
            writer.cut_anew(film)
        if writer.film.path != film.path:
            writer.film_moved(film.path)
    except BaseException:
        lock.close()
        raise
    return writer


def _locked(folder: Path) -> sqlite3.Connection:
    """A lock that ends with this process, however it ends. SQLite's works on every system that Python runs on."""
    lock = sqlite3.connect(folder / LOCK_NAME, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        if "locked" in str(error):
            raise StoreInUse(
                f"another qwen-shots is writing to {folder}; wait for it, or take another folder"
            ) from None
        raise
    return lock


def _connected(folder: Path, film: FilmRecord) -> sqlite3.Connection:
    """Connect to the film's tables; make them, or bring them to this version. Another film's are left as they are."""
    file = folder / FILE_NAME
    if file.exists():
        check_header(file)
    connection = sqlite3.connect(file, check_same_thread=False)
    try:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            _begin(connection, film)
        else:
            version = check_version(connection, file)
            with open_store(folder) as known:
                _check_same(folder, known, film)
            if version < VERSION:
                connection.executescript(f"BEGIN IMMEDIATE;{FROM_VERSION_1}COMMIT;")
        connection.execute("PRAGMA journal_mode = WAL")  # readers never wait
        connection.execute("PRAGMA synchronous = FULL")  # an answer outlives a power cut
        connection.execute("PRAGMA foreign_keys = ON")
    except UNREADABLE as error:
        connection.close()
        raise CannotStore(f"nothing can be stored in {file} ({error})") from None
    except BaseException:
        connection.close()
        raise
    return connection


def _begin(connection: sqlite3.Connection, film: FilmRecord) -> None:
    """Make the tables and the film's row in one step, so that there is never half of it."""
    values = (
        os.fsencode(film.path),  # names of other bytes than UTF-8's are names too
        film.size,
        film.fingerprint,
        film.duration,
        str(film.frame_rate),
        film.start_timecode,
        film.width,
        film.height,
        film.cut_by,
        film.model,
        film.first_picture,
    )
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute(INSERT_FILM, values)


def _check_same(folder: Path, store: Store, film: FilmRecord) -> None:
    known = store.film
    if known.fingerprint != film.fingerprint:
        raise OtherFilm(f"{folder} holds the answers about {known.path.name}, another film; name another folder")
    if known.cut_by != film.cut_by and any(shot.attempts for shot in store.shots()):
        raise OtherFilm(
            f"{folder} holds this film's answers with its shots by {known.cut_by}, not {film.cut_by}; "
            "go on with that, or name another folder"
        )


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
