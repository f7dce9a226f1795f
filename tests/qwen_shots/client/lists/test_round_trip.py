"""A list that the client writes reads back as itself: at every rate, even or uneven, and over midnight."""

from __future__ import annotations

import csv
import io
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_shots.client.describe import describe
from qwen_shots.client.exports.cutlist import film_cuts, selected_cuts, timebase_of
from qwen_shots.client.exports.edl import to_edls
from qwen_shots.client.exports.otio import to_otio
from qwen_shots.client.exports.tables import to_csv
from qwen_shots.client.film import picture_times
from qwen_shots.client.lists.edl import from_edl
from qwen_shots.client.lists.film_time import FilmTime, Listed
from qwen_shots.client.lists.tables import from_table
from qwen_shots.client.lists.timelines import from_timeline
from qwen_shots.client.shot_lists import read_shot_list
from qwen_shots.client.store import FilmRecord, ShotRecord
from qwen_shots.client.timecode import Timebase, can_drop, timecode_rate

RATES = [
    *(Fraction(rate) for rate in (1, 6, 12, 15, 18, 24, 25, 27, 30, 48, 50, 60, 72, 100, 120, 240)),
    *(Fraction(rate) for rate in ("12.5", "7.5", "0.4")),
    *(Fraction(rate * 1000, 1001) for rate in (15, 24, 30, 48, 60, 120)),
]


@dataclass(frozen=True)
class Case:
    film: FilmRecord
    borders: list[float]
    shots: list[ShotRecord]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A film, even or uneven, cut at some of its pictures."""
    rate = draw(st.sampled_from(RATES))
    base = timecode_rate(rate)
    first = draw(st.sampled_from([0.0, 1 / 30, 0.08, 1.4]))
    count = draw(st.integers(2, 400))
    if draw(st.booleans()):
        borders = [first + float(number / rate) for number in range(count + 1)]
    else:  # from far denser than the rate to far sparser
        steps = draw(st.lists(st.integers(1, 150), min_size=count, max_size=count))
        borders = [first + sum(steps[:number]) / 1000 for number in range(count + 1)]
    drop = draw(st.booleans()) and can_drop(base)
    counted = Timebase(base, drop)
    start = draw(st.none() | st.integers(0, counted.frames_a_day - 1) | st.just(counted.frames_a_day - 2))
    timecode = None if start is None else counted.text(start)
    film = FilmRecord(
        Path("/films/a.mp4"), 1, "", borders[-1], rate, timecode, 64, 48, "", first_picture=borders[0]
    )  # fmt: skip
    cuts = sorted({0, count, *draw(st.lists(st.integers(1, count), max_size=12))})
    name = st.none() | st.text("abcé :,0123456789", min_size=1, max_size=9).map(str.strip).filter(bool)
    shots = [
        ShotRecord(number, borders[one], borders[other], one, other, draw(name))
        for number, (one, other) in enumerate(zip(cuts, cuts[1:], strict=False), start=1)
    ]
    return Case(film, borders, shots)


def check(listed: list[Listed], shots: list[ShotRecord]) -> None:
    # A table has microseconds, timelines and EDLs whole pictures.
    times = [(shot.start, shot.end) for shot in shots]
    assert [(shot.start, shot.end) for shot in listed] == [pytest.approx(each, abs=1e-6) for each in times]
    assert [shot.name for shot in listed] == [" ".join(shot.name.split()) if shot.name else None for shot in shots]


@given(cases(), st.none() | st.booleans())
def test_of_any_film(case: Case, drop: bool | None) -> None:
    film = case.film
    drop = None if not can_drop(timecode_rate(film.frame_rate)) else drop
    cuts = film_cuts(film, case.shots, timebase_of(film, drop=drop))
    written = [piece.shot for piece in cuts.pieces]
    time = FilmTime(film.frame_rate, film.start_timecode, case.borders)
    (edl,) = to_edls(cuts)
    check(from_edl("a.edl", edl, time), written)
    check(from_timeline("a.otio", to_otio(cuts), time), written)
    check(from_table("a.csv", to_csv(case.shots), time), case.shots)
    backwards = selected_cuts(film, case.shots[::-1], cuts.timebase)
    (edl,) = to_edls(backwards)
    check(from_edl("a.edl", edl, time), [piece.shot for piece in backwards.pieces])


@given(cases())
def test_only_shots_shorter_than_a_number_are_left_out(case: Case) -> None:
    base = timebase_of(case.film)
    kept = {piece.shot.number for piece in film_cuts(case.film, case.shots, base).pieces}
    assert all(shot.duration <= 1 / base.rate for shot in case.shots if shot.number not in kept)


def test_a_trimmed_event_is_not_overruled_by_its_comment() -> None:
    film = FilmRecord(Path("a.mp4"), 1, "", 10.0, Fraction(24), None, 64, 48, "")
    shot = ShotRecord(1, 1.0, 5.0, 24, 120)
    (edl,) = to_edls(film_cuts(film, [shot], timebase_of(film)))
    trimmed = edl.replace("00:00:01:00", "00:00:02:00")
    time = FilmTime(Fraction(24), None, [number / 24 for number in range(241)])
    (listed,) = from_edl("a.edl", trimmed, time)
    assert (listed.start, listed.end) == (2, 5)


def make(path: Path, rate: str, *arguments: str) -> Path:
    source = f"color=0x405060:s=64x48:r={rate}:d=13"
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *arguments, "-c:v", "libx264"]
    subprocess.run([*command, "-preset", "ultrafast", str(path)], check=True, stdin=subprocess.DEVNULL)
    return path


UNEVEN = ("-vf", "select='gt(mod(n,50),0)+eq(n,0)'", "-fps_mode", "vfr")


@pytest.mark.parametrize(
    ("ending", "rate", "arguments"),
    [
        ("mp4", "12", ()),
        ("mp4", "120", ()),
        ("mkv", "24000/1001", ()),
        ("ts", "25", ()),
        ("mov", "30", UNEVEN),
        ("mkv", "30", UNEVEN),
        ("mov", "25", ("-timecode", "23:59:55:00")),
        ("mov", "30000/1001", ("-timecode", "23:59:55;00")),
        ("mov", "30", ("-timecode", "16:37:55;00")),
        ("mov", "60000/1001", ("-timecode", "00:59:55;00")),
    ],
)
def test_of_real_films(tmp_path: Path, ending: str, rate: str, arguments: tuple[str, ...]) -> None:
    path = make(tmp_path / f"film.{ending}", rate, *arguments)
    starts, end = picture_times(path)
    borders = [*starts, end]
    cuts = [0, 20, 47, 90, 91, 121, len(starts)]
    shots = [
        ShotRecord(number, borders[one], borders[other], one, other)
        for number, (one, other) in enumerate(zip(cuts, cuts[1:], strict=False), start=1)
    ]
    record = describe(path, "")
    made = film_cuts(record, shots, timebase_of(record))
    for name, text in (("a.edl", to_edls(made)[0]), ("a.otio", to_otio(made)), ("a.csv", to_csv(shots))):
        (tmp_path / name).write_text(text)
        assert read_shot_list(tmp_path / name, path) == shots
    # A table of timecodes, as people make them of an EDL.
    rows = [line.split()[4:6] for line in to_edls(made)[0].splitlines() if line[:3].isdigit()]
    table = io.StringIO(newline="")
    csv.writer(table, delimiter="\t").writerows([["In", "Out"], *rows])
    (tmp_path / "timecodes.csv").write_text(table.getvalue())
    assert read_shot_list(tmp_path / "timecodes.csv", path) == shots
