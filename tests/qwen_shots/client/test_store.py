"""The folder of answers: what is written comes back, one writes at a time, and nothing half-written stays."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import pytest

from qwen_shots.client.errors import CannotStore, NoStore, OtherFilm, StoreInUse
from qwen_shots.client.store import FILE_NAME, FilmRecord, ShotRecord, open_store
from qwen_shots.client.writer import Answered, write_store
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
    write_store(tmp_path, FILM).close()
    with pytest.raises(OtherFilm, match=r"a film\.mp4"):
        write_store(tmp_path, replace(FILM, fingerprint="e" * 64))
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
        writer._connection.execute("PRAGMA user_version = 2")
    with pytest.raises(NoStore, match="version 2"):
        open_store(tmp_path)


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
