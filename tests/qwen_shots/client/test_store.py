"""The folder of answers: what is written comes back, one writes at a time, and nothing half-written stays."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import pytest

from qwen_shots.active_picture import ActivePicture
from qwen_shots.client.errors import CannotStore, NoStore, OtherFilm, StoreError, StoreInUse
from qwen_shots.client.store import (
    FILE_NAME,
    VERSION,
    ErrorRecord,
    FilmRecord,
    ShotRecord,
    Store,
    open_store,
)
from qwen_shots.client.writer import FROM_VERSION_1, LOCK_NAME, Answered, write_store
from qwen_shots.schemas import Analysis, BatchError
from tests.helpers import ROOT

FILM = FilmRecord(
    Path("/films/a film.mp4"), 123, "f" * 64, 10.5, Fraction(24_000, 1001), "01:00:00;00", 854, 480, "adaptive"
)
SHOTS = [
    ShotRecord(1, 0.0, 4.0, 0, 96),
    ShotRecord(2, 4.0, 10.0, 96, 240, name="A002"),
    ShotRecord(3, 10.0, 10.5, 240, 252),
]
SCORES = {"suspense": 0.25, "motion": 1.0}


def good(number: int) -> Answered:
    analysis = Analysis(shot_id=number, caption="A face, “close”.", attributes=SCORES)
    return Answered(number, analysis, "dialog", b"\xff\xd8jpeg")


def bad(number: int) -> Answered:
    error = BatchError(index=0, shot_id=number, type="urn:x", title="It failed", detail="of something")
    return Answered(number, error, None, None)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    with write_store(tmp_path / "new" / "folder", FILM) as writer:
        writer.add_shots(SHOTS)
        writer.add_answers([good(1), bad(2)])
        writer.set_complete(10.4)
    with open_store(tmp_path / "new" / "folder") as store:
        assert store.film == replace(FILM, duration=10.4)
        assert store.complete
        first, second, third = store.shots()
        assert store.shot(2) == second
        assert store.shot(4) is None
    assert first.answered_at is not None
    assert before < first.answered_at < before + timedelta(minutes=1)
    assert (first.caption, first.scores, first.audio_class) == ("A face, “close”.", SCORES, "dialog")
    assert (first.thumbnail, first.attempts, first.analysed, first.failed) == (b"\xff\xd8jpeg", 1, True, False)
    assert (second.name, second.analysed, second.failed, second.duration) == ("A002", False, True, 6.0)
    assert second.error is not None
    assert (second.error.type, second.error.title, second.error.detail) == ("urn:x", "It failed", "of something")
    assert third == SHOTS[2]


def test_evidence_comes_back(tmp_path: Path) -> None:
    evidence = {
        "key_frames": [{"index": 0, "weight": 1.0}],
        "weights": {"temporal": 0.3, "luminance": 0.2, "audio": 0.2},
        "readings": {"motion": [{"value": 0.1, "spread": 0.2, "mass": 0.9}]},
        "measured": {"luminance": 0.3, "darkness": 0.4, "motion": None},
        "audio": None,
        "fusion": {"motion": {"visual": 0.1, "measurement": 0.0, "audio": 0.0}},
    }
    analysis = Analysis.model_validate(
        {"shot_id": 1, "caption": "", "attributes": {"motion": 0.1}, "evidence": evidence}
    )
    with write_store(tmp_path, FILM) as writer:
        writer.add_shots(SHOTS)
        writer.add_answers([Answered(1, analysis, None, None)])
        shot = writer.shot(1)
    assert shot is not None
    assert shot.evidence == analysis.evidence
    assert shot.analysed  # an empty caption is a caption


def test_a_later_answer_replaces_an_error_and_counts(tmp_path: Path) -> None:
    with write_store(tmp_path, FILM) as writer:
        writer.add_shots(SHOTS)
        writer.add_answers([bad(1)])
    with write_store(tmp_path, FILM) as writer:
        writer.add_shots(SHOTS)  # known already
        writer.add_answers([good(1)])
        shot = writer.shots()[0]
    assert (shot.attempts, shot.analysed, shot.failed) == (2, True, False)


def test_readers_see_what_is_written_while_it_is_written(tmp_path: Path) -> None:
    with write_store(tmp_path, FILM) as writer, open_store(tmp_path) as reader:
        assert reader.shots() == []
        assert not reader.complete
        writer.add_shots(SHOTS)
        assert reader.shots() == SHOTS


def test_reading_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    with write_store(tmp_path, FILM) as writer:
        writer.add_shots(SHOTS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(2):
        with open_store(tmp_path) as reader, open_store(tmp_path) as other:
            assert reader.shots() == other.shots() == SHOTS
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_answer_outlives_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.qwen_shots.client.test_store import *\n"
        "writer = write_store(Path(sys.argv[1]), FILM)\n"
        "writer.add_shots(SHOTS); writer.add_answers([good(1)]); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -9
    with open_store(tmp_path) as store:
        assert [shot.analysed for shot in store.shots()] == [True, False, False]
    write_store(tmp_path, FILM).close()  # the dead one's lock is gone


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with write_store(tmp_path, FILM), pytest.raises(StoreInUse, match="another qwen-shots"):
        write_store(tmp_path, FILM)
    write_store(tmp_path, FILM).close()


def test_another_film_or_other_shots_are_refused_and_a_moved_film_is_not(tmp_path: Path) -> None:
    with write_store(tmp_path, FILM) as writer:
        writer.add_shots(SHOTS)
    with pytest.raises(OtherFilm, match=r"a film\.mp4"):
        write_store(tmp_path, replace(FILM, fingerprint="e" * 64))
    with write_store(tmp_path, replace(FILM, cut_by="content")) as writer:  # nothing is answered yet
        assert (writer.film.cut_by, writer.shots(), writer.complete) == ("content", [], False)
    with write_store(tmp_path, FILM) as writer:
        writer.add_shots(SHOTS)
        writer.add_answers([bad(1)])
    with pytest.raises(OtherFilm, match="adaptive"):
        write_store(tmp_path, replace(FILM, cut_by="content"))
    with write_store(tmp_path, replace(FILM, path=Path("/elsewhere.mp4"))) as writer:
        assert writer.film.path == Path("/elsewhere.mp4")


def test_no_space_changes_nothing(tmp_path: Path) -> None:
    with write_store(tmp_path, FILM) as writer:
        writer.add_shots(SHOTS)
        (pages,) = writer._connection.execute("PRAGMA page_count").fetchone()
        writer._connection.execute(f"PRAGMA max_page_count = {pages}")
        large = replace(good(2), thumbnail=bytes(100_000))
        with pytest.raises(CannotStore, match="full"):
            writer.add_answers([good(1), large])
        assert writer.shots() == SHOTS


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(NoStore, match="qwen-shots analyze"):
        open_store(tmp_path)
    file = tmp_path / FILE_NAME
    file.write_text("no database at all, " * 100)
    for opened in (open_store, lambda folder: write_store(folder, FILM)):
        with pytest.raises((NoStore, CannotStore), match="not a database"):
            opened(tmp_path)
    file.unlink()
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE film (title TEXT)")
    other.close()
    for opened in (open_store, lambda folder: write_store(folder, FILM)):
        with pytest.raises(NoStore, match="not made by qwen-shots"):
            opened(tmp_path)


def test_a_file_that_is_damaged_inside(tmp_path: Path) -> None:
    with write_store(tmp_path, FILM) as writer:
        writer.add_shots([ShotRecord(n, n, n + 1, n, n + 1, name="a name" * 10) for n in range(1, 500)])
    data = bytearray((tmp_path / FILE_NAME).read_bytes())
    data[4096:] = b"\xa5" * len(data[4096:])
    (tmp_path / FILE_NAME).write_bytes(data)
    with open_store(tmp_path) as store:
        for read in (lambda: store.film, store.shots, lambda: store.complete):
            with pytest.raises(NoStore, match="malformed"):
                read()


def test_a_film_whose_name_is_not_utf8(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(b"/films/\xff\xe9.mp4"))
    with write_store(tmp_path, replace(FILM, path=odd)) as writer:
        assert writer.film.path == odd
    with write_store(tmp_path, FILM) as writer:
        assert writer.film.path == FILM.path
    with write_store(tmp_path, replace(FILM, path=odd)) as writer:
        assert writer.film.path == odd


def test_tables_of_another_version(tmp_path: Path) -> None:
    with write_store(tmp_path, FILM) as writer:
        writer._connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    for opened in (open_store, lambda folder: write_store(folder, FILM)):
        with pytest.raises(NoStore, match=f"version {VERSION + 1}"):
            opened(tmp_path)


def test_a_writer_that_was_killed_before_it_began_is_no_hindrance(tmp_path: Path) -> None:
    begun = sqlite3.connect(tmp_path / FILE_NAME)
    begun.execute("PRAGMA journal_mode = WAL")
    begun.close()
    with pytest.raises(NoStore, match="no film yet"):
        open_store(tmp_path)
    with write_store(tmp_path, FILM) as writer:
        assert writer.film == FILM


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotStore, match="file"):
        write_store(tmp_path / "file", FILM)


# --- what a shot was measured to be ----------------------------------------------------------------------------------


def test_measures_come_back_and_stay_where_none_are_new(tmp_path: Path) -> None:
    letterbox = ActivePicture(0.0, 0.125, 1.0, 0.875)
    assert letterbox.bars == 0.25
    motion = {"camera": 0.25, "subject": 0.5}
    found = replace(SHOTS[0], transition="dissolve", active_picture=letterbox)
    with write_store(tmp_path, FILM) as writer:
        writer.add_shots([found, *SHOTS[1:]])
        writer.add_answers([replace(good(1), motion_features=motion, speech_ratio=0.0), good(2)])
        writer.add_answers([good(1)])
    with open_store(tmp_path) as store:
        first, second, _ = store.shots()
    assert (first.transition, first.active_picture, first.motion_features) == ("dissolve", letterbox, motion)
    assert first.speech_ratio == 0.0
    assert (second.transition, second.active_picture, second.speech_ratio) == (None, None, None)


def test_the_model_that_answered(tmp_path: Path) -> None:
    with write_store(tmp_path, FILM) as writer:
        assert writer.film.model is None
        writer.set_model("a/model@0123")
    with open_store(tmp_path) as store:
        assert store.film.model == "a/model@0123"


# --- folders of an earlier version -----------------------------------------------------------------------------------

# As they were made, in SQL that the code of today has no part in.
VERSION_1 = """
CREATE TABLE film (id INTEGER PRIMARY KEY CHECK (id = 1), path TEXT NOT NULL, size INTEGER NOT NULL,
    fingerprint TEXT NOT NULL, duration REAL NOT NULL, frame_rate TEXT NOT NULL, start_timecode TEXT,
    width INTEGER NOT NULL, height INTEGER NOT NULL, cut_by TEXT NOT NULL, complete INTEGER NOT NULL) STRICT;
CREATE TABLE shot (number INTEGER PRIMARY KEY, start REAL NOT NULL, end REAL NOT NULL, first_frame INTEGER NOT NULL,
    end_frame INTEGER NOT NULL, name TEXT) STRICT;
CREATE TABLE answer (number INTEGER PRIMARY KEY REFERENCES shot, attempts INTEGER NOT NULL, answered_at TEXT NOT NULL,
    caption TEXT, scores TEXT, evidence TEXT, error_type TEXT, error_title TEXT, error_detail TEXT, audio_class TEXT,
    thumbnail BLOB) STRICT;
INSERT INTO film VALUES (1, '/films/a film.mp4', 123, 'f', 10.5, '24000/1001', '01:00:00;00', 854, 480, 'adaptive', 1);
INSERT INTO shot VALUES (1, 0.0, 4.0, 0, 96, NULL), (2, 4.0, 10.0, 96, 240, 'A002'), (3, 10.0, 10.5, 240, 252, NULL);
INSERT INTO answer VALUES
    (1, 2, '2025-01-02T03:04:05+00:00', 'A face.', '{"suspense": 0.25}', NULL, NULL, NULL, NULL, 'dialog', x'FFD8'),
    (2, 1, '2025-01-02T03:04:06+00:00', NULL, NULL, NULL, 'urn:x', 'It failed', 'of something', NULL, NULL);
PRAGMA application_id = 0x71736873;
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder of version 1."""
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.executescript(VERSION_1)
    return tmp_path


def check_old(store: Store) -> None:
    assert store.film == replace(FILM, fingerprint="f")
    assert store.complete
    first, second, third = store.shots()
    assert (first.caption, first.scores, first.attempts) == ("A face.", {"suspense": 0.25}, 2)
    assert (first.thumbnail, first.answered_at) == (b"\xff\xd8", datetime(2025, 1, 2, 3, 4, 5, tzinfo=timezone.utc))
    assert second.error == ErrorRecord("urn:x", "It failed", "of something")
    assert (second.name, third.attempts) == ("A002", 0)
    assert {(shot.transition, shot.active_picture, shot.speech_ratio) for shot in store.shots()} == {(None, None, None)}


def test_the_time_of_the_first_picture_is_kept(tmp_path: Path) -> None:
    """Timecode counts from it."""
    film = replace(FILM, first_picture=0.033)
    write_store(tmp_path, film).close()
    with open_store(tmp_path) as store:
        assert store.film == film


def test_an_old_folder_is_read_without_being_changed(old: Path) -> None:
    before = (old / FILE_NAME).read_bytes()
    with open_store(old) as store:
        check_old(store)
    assert (old / FILE_NAME).read_bytes() == before


def test_an_old_folder_is_migrated_by_its_own_film_alone(old: Path) -> None:
    with pytest.raises(OtherFilm):
        write_store(old, FILM)
    with closing(sqlite3.connect(old / FILE_NAME)) as tables:
        assert tables.execute("PRAGMA user_version").fetchone() == (1,)
    with open_store(old) as reader:
        for _ in range(2):
            with write_store(old, replace(FILM, fingerprint="f")) as writer:
                check_old(writer)
        check_old(reader)
    with write_store(old, replace(FILM, fingerprint="f")) as writer:
        writer.add_answers([good(3)])
        assert [shot.analysed for shot in writer.shots()] == [True, False, True]


def test_a_migration_that_finds_no_space_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = FROM_VERSION_1.replace("DROP TABLE old_film;", "INSERT INTO film SELECT * FROM film;")  # fails half-way
    monkeypatch.setattr("qwen_shots.client.writer.FROM_VERSION_1", broken)
    with pytest.raises(CannotStore):
        write_store(old, replace(FILM, fingerprint="f"))
    with open_store(old) as store:
        check_old(store)


def test_no_table_needs_a_new_sqlite(old: Path, tmp_path: Path) -> None:
    """SQLite before 3.37 (Rocky Linux 8 and 9) takes a file with a STRICT table for a damaged one."""
    write_store(tmp_path / "new", FILM).close()
    write_store(old, replace(FILM, fingerprint="f")).close()
    for folder in (tmp_path / "new", old):
        with closing(sqlite3.connect(folder / FILE_NAME)) as tables:
            schema = " ".join(sql for (sql,) in tables.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
            assert "STRICT" not in schema
            with pytest.raises(sqlite3.IntegrityError):
                tables.execute("UPDATE film SET complete = 2")


# --- folders and files that can't be written, or are not ours --------------------------------------------------------


@contextmanager
def nobody_may_write(folder: Path) -> Iterator[None]:
    """Files and folders without write permission, and a user whom that binds (tests may run as root)."""
    was = folder.stat().st_mode
    for each in (*folder.iterdir(), folder):
        each.chmod(0o555 if each.is_dir() else 0o444)
    above = [each for each in folder.parents if each.stat().st_uid == os.geteuid() and not each.stat().st_mode & 1]
    for each in above:
        each.chmod(each.stat().st_mode | 0o11)
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if as_root:
            os.seteuid(0)
        folder.chmod(was)
        for each in above:
            each.chmod(each.stat().st_mode & ~0o11)


NOBODY = 65534


@pytest.mark.parametrize("killed", [False, True])
def test_a_folder_that_is_read_only(tmp_path: Path, killed: bool) -> None:
    """On a DVD, a share, or of another user; also where the writer was killed and its answers are in the log."""
    folder = tmp_path / "folder"
    end = "os.kill(os.getpid(), 9)" if killed else "writer.close()"
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.qwen_shots.client.test_store import *\n"
        "writer = write_store(Path(sys.argv[1]), FILM)\n"
        f"writer.add_shots(SHOTS); writer.add_answers([good(1)]); {end}\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=False)
    assert (folder / f"{FILE_NAME}-wal").exists() == killed
    (folder / f"{FILE_NAME}-shm").unlink(missing_ok=True)  # what remains of a folder that was copied
    names = sorted(folder.iterdir())
    with nobody_may_write(folder), open_store(folder) as store:
        assert store.film == FILM
        assert [shot.analysed for shot in store.shots()] == [True, False, False]
    assert sorted(folder.iterdir()) == names


def test_an_old_folder_that_is_read_only(old: Path) -> None:
    with nobody_may_write(old), open_store(old) as store:
        check_old(store)


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_foreign_file_stays_as_it_is(tmp_path: Path, journal: str) -> None:
    file = tmp_path / FILE_NAME
    with closing(sqlite3.connect(file)) as other:
        other.execute(f"PRAGMA journal_mode = {journal}")
        other.execute("CREATE TABLE film (title TEXT)")
    before = file.read_bytes()
    for opened in (open_store, lambda folder: write_store(folder, FILM)):
        with pytest.raises(NoStore, match="not made by qwen-shots"):
            opened(tmp_path)
    assert file.read_bytes() == before
    assert {each.name for each in tmp_path.iterdir()} <= {FILE_NAME, LOCK_NAME}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE answer SET scores = '{'",
        'UPDATE answer SET scores = \'{"suspense": "high"}\'',
        "UPDATE answer SET evidence = '{}'",
        "UPDATE answer SET answered_at = 'yesterday'",
        "UPDATE shot SET start = 'soon'",
        "UPDATE shot SET active_picture = '[0, 1]'",
    ],
)
def test_a_shot_that_is_no_shot(tmp_path: Path, change: str) -> None:
    with write_store(tmp_path, FILM) as writer:
        writer.add_shots(SHOTS)
        writer.add_answers([good(1)])
        writer._connection.execute(change)
        writer._connection.commit()
    with open_store(tmp_path) as store, pytest.raises(NoStore, match="damaged"):
        store.shots()


@pytest.mark.parametrize("change", ["frame_rate = '1/0'", "frame_rate = 'fast'", "size = 'large'"])
def test_a_film_that_is_no_film(tmp_path: Path, change: str) -> None:
    with write_store(tmp_path, FILM) as writer:
        writer._connection.execute(f"UPDATE film SET {change}")
        writer._connection.commit()
    with open_store(tmp_path) as store, pytest.raises(NoStore, match="damaged"):
        assert store.film


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A store's file with something in every column."""
    folder = tmp_path_factory.mktemp("whole")
    shots = [replace(SHOTS[n % 3], number=n, motion_features={"camera": 0.5}) for n in range(1, 60)]
    with write_store(folder, FILM) as writer:
        writer.add_shots(shots)
        writer.add_answers([replace(good(n), thumbnail=bytes(3000)) if n % 5 else bad(n) for n in range(1, 50)])
    return (folder / FILE_NAME).read_bytes()


@pytest.mark.parametrize("seed", range(60))
def test_damage_anywhere_is_told_and_never_crashes(whole: bytes, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(whole)
    start = chance.randrange(4096 if seed % 2 else len(data))  # the schema is in the first page
    end = start + chance.choice([1, 3, 40, 9000])
    data[start:end] = chance.choice([b"", chance.randbytes(end - start), bytes(end - start)])
    (tmp_path / FILE_NAME).write_bytes(data)
    with suppress(StoreError), open_store(tmp_path) as store:
        _ = store.film, store.shots(), store.complete
    with suppress(StoreError), write_store(tmp_path, FILM) as writer:
        writer.add_answers([good(3)])


def test_a_film_that_is_not_in_its_own_store(tmp_path: Path) -> None:
    with write_store(tmp_path, FILM) as writer:
        writer._connection.execute("DELETE FROM film")
        writer._connection.commit()
    with open_store(tmp_path) as store, pytest.raises(NoStore, match="damaged"):
        assert store.film


def test_a_lock_that_is_none(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_bytes(b"no database at all, " * 100)
    with pytest.raises(CannotStore, match="not a database"):
        write_store(tmp_path, FILM)
