"""Films that can be read, and files that can't."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from qwen_shots.client import film
from qwen_shots.client.errors import FilmCutShort, FilmError, NotAFilm, NoVideoStream
from tests.helpers import ROOT
from tests.qwen_shots.client.clips import RATE, scenes, tone, write_film

SINTEL = ROOT / "samples/sintel-trailer.mp4"


def times(path: Path) -> list[tuple[float, float]]:
    return [(frame.start, frame.end) for frame in film.frames(path)]


def test_a_real_film_has_its_own_times() -> None:
    read = times(SINTEL)
    assert len(read) == 1252
    assert [start for start, _ in read] == pytest.approx([number / 24 for number in range(1252)])
    assert read[-1][1] == pytest.approx(1252 / 24)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_every_format_begins_at_zero(tmp_path: Path, name: str) -> None:
    read = times(write_film(tmp_path / name, scenes(30), sound=tone(440, 1.25)))
    assert [start for start, _ in read] == pytest.approx([number / RATE for number in range(30)], abs=1e-3)
    assert all(end > start for start, end in read)


def test_a_film_that_starts_late_and_runs_unevenly(tmp_path: Path) -> None:
    given = [5.0, 5.1, 5.4, 6.0]
    path = write_film(tmp_path / "a.mkv", scenes(4), times=given)
    assert [start for start, _ in times(path)] == pytest.approx(given, abs=1e-3)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(NotAFilm, match="No such file"):
        times(tmp_path / "nowhere.mp4")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotAFilm):
        times(tmp_path)


@pytest.mark.parametrize("name", ["words.mp4", "words.txt", "words.mkv"])
def test_text_is_no_film(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("no film at all\n" * 1000)
    with pytest.raises(NotAFilm):
        times(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_single_picture_is_no_film(tmp_path: Path, name: str) -> None:
    Image.fromarray(scenes(1)[0]).save(tmp_path / name)
    with pytest.raises(NotAFilm, match="is not a film"):
        times(tmp_path / name)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(NotAFilm):
        times(tmp_path / "a.mp4")


def test_a_name_that_looks_like_an_address_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_film(tmp_path / "x.mp4", scenes(3)).rename(tmp_path / "tcp:127.0.0.1")
    monkeypatch.chdir(tmp_path)
    assert len(times(Path("tcp:127.0.0.1"))) == 3


def test_sound_alone(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", [], sound=tone(440, 1))
    with pytest.raises(NoVideoStream):
        times(path)


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_cut_short(tmp_path: Path, name: str, share: float) -> None:
    whole = write_film(tmp_path / name, scenes(60, 60, 60), web=True).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    frames = film.frames(tmp_path / name)
    with pytest.raises(FilmCutShort, match="ends after"):
        seen = [next(frames) for _ in range(180)]
        assert len(seen) < 180


def test_an_mp4_without_its_index(tmp_path: Path) -> None:
    whole = write_film(tmp_path / "a.mp4", scenes(60)).read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FilmCutShort, match="index"):
        times(tmp_path / "a.mp4")


def test_damage_inside_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(write_film(tmp_path / "a.mp4", scenes(60, 60, 60), web=True).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    (tmp_path / "a.mp4").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        read = times(tmp_path / "a.mp4")
    assert 150 < len(read) <= 180
    assert read[-1][1] == pytest.approx(180 / RATE, abs=1e-3)


def test_pictures_that_are_all_damaged(tmp_path: Path) -> None:
    data = bytearray(write_film(tmp_path / "a.mp4", scenes(24)).read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(FilmError, match="can be decoded"):
        times(tmp_path / "a.mp4")
