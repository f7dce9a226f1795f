"""Other people's shot lists: each kind, moved to the film's own pictures."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import opentimelineio as otio
import pytest

from qwen_shots.client.film import frames, picture_times
from qwen_shots.client.lists.film_time import FilmTime, InvalidShotList
from qwen_shots.client.lists.tables import from_table
from qwen_shots.client.shot_lists import read_shot_list
from qwen_shots.client.store import ShotRecord
from tests.helpers import ROOT
from tests.qwen_shots.client.clips import RATE, scenes, tone, write_film

SHOTS = [(0, 30), (30, 75), (80, 95)]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "a.mp4", scenes(30, 45, 20), sound=tone(440, 4))


def read(film: Path, name: str, text: str) -> list[ShotRecord]:
    path = film.parent / name
    path.write_text(text)
    return read_shot_list(path, film)


def check(shots: list[ShotRecord], names: list[str | None] | None = None) -> None:
    assert [(shot.first_frame, shot.end_frame) for shot in shots] == SHOTS
    assert [shot.start for shot in shots] == pytest.approx([first / RATE for first, _ in SHOTS], abs=1e-3)
    assert [shot.end for shot in shots] == pytest.approx([last / RATE for _, last in SHOTS], abs=1e-3)
    assert [shot.number for shot in shots] == [1, 2, 3]
    if names:
        assert [shot.name for shot in shots] == names


@pytest.mark.parametrize(
    "text",
    [
        "start,end,name\n0,1.25,a\n1.25,3.125,b\n3.33,3.96,c\n",
        "name,start,end\na,00:00:00.000,00:00:01.250\nb,0:01.25,0:03.125\nc,0:03.33,0:03.96\n",
        (
            "Shot ID,Start Timecode,End Timecode\na,00:00:00:00,00:00:01:06\nb,00:00:01:06,00:00:03:03\n"
            "c,00:00:03:08,00:00:03:23\n"
        ),
        "\ufeffstart,name,end,motion\r\n3.33,c,3.96,0.5\r\n0,a,1.25,1\r\n1.25,b,3.125,0\r\n\r\n",
    ],
    ids=["seconds", "clock", "timecode", "unordered, with a mark and more columns"],
)
def test_tables(film: Path, text: str) -> None:
    check(read(film, "list.csv", text), ["a", "b", "c"])


def test_a_table_of_pyscenedetect(film: Path) -> None:
    text = (
        "Timecode List:,00:00:01.250\nScene Number,Start Frame,Start Timecode,Start Time (seconds),End Frame,"
        "End Timecode,End Time (seconds),Length (frames)\n"
        "1,1,00:00:00.000,0.000,30,00:00:01.250,1.250,30\n2,31,00:00:01.250,1.250,75,00:00:03.125,3.125,45\n"
        "3,81,00:00:03.333,3.333,95,00:00:03.958,3.958,15\n"
    )
    check(read(film, "list.csv", text), ["1", "2", "3"])


EDL = """TITLE: cuts
FCM: NON-DROP FRAME

001  AX       V     C        00:00:00:00 00:00:01:06 01:00:00:00 01:00:01:06
* FROM CLIP NAME: first
002  AX       V     C        00:00:01:06 00:00:03:03 01:00:01:06 01:00:03:03
003  AX       V     C        00:00:03:08 00:00:03:23 01:00:03:03 01:00:03:18
"""


SEMICOLONS = "start;end;name\n0;1,25;a\n0:01,25;0:03,125;b\n3,33;3,96;c\n"
TABS = "start\tend\tname\n0\t1.25\ta\n1,25\t3,125\tb\n3.33\t3.96\tc\n"


@pytest.mark.parametrize(
    "content",
    [
        SEMICOLONS.encode(),
        ("\ufeff" + SEMICOLONS).encode(),
        ("sep=;\n" + SEMICOLONS).encode(),
        TABS.encode(),
        TABS.encode("utf-16"),  # Excel's "Unicode text"
        SEMICOLONS.replace("0:03,125", "00:00:03,125").replace("\n", "\r\n").encode(),
    ],
    ids=["semicolons", "with a mark", "with sep", "tabs", "UTF-16", "SubRip's times"],
)
def test_tables_of_spreadsheets(film: Path, content: bytes) -> None:
    path = film.parent / "list.csv"
    path.write_bytes(content)
    check(read_shot_list(path, film), ["a", "b", "c"])


def test_milliseconds_behind_a_comma_are_no_frames(film: Path) -> None:
    """00:00:00,010 is 10 ms; frame 10 would be picture 10."""
    shots = read(film, "list.csv", 'start,end\n"00:00:00,010","00:00:01,250"\n"00:00:01,250","00:00:03,125"\n')
    assert [(shot.first_frame, shot.end_frame) for shot in shots] == SHOTS[:2]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_frames_behind_a_comma_in_all_tables(delimiter: str) -> None:
    """A film that drops frames: 00:00:04,12 is frame 4 * 30 + 12."""
    text = f'start{delimiter}end{delimiter}Clip Name\n"00:00:04,12"{delimiter}"00:01:00,02"{delimiter}one\n'
    (shot,) = from_table("list.csv", text, FilmTime(Fraction(30_000, 1001), "00:00:00;00"))
    assert (shot.start, shot.end) == pytest.approx((132 * 1.001 / 30, 1800 * 1.001 / 30))
    assert shot.name == "one"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("start,end\n0,1\n\n1,soon\n", 4, "'soon' is no time"),
        ("start;end\n0;1\n1;x\n", 3, "'x' is no time"),
        ("note\nstart,end\n0,1\n,2\n", 4, "'' is no time"),
        ('start,end\n0,"1,004"\n', 2, "'1,004' is no time"),
        ("start,end\n-0.04,1\n", 2, "'-0.04' is no time"),
        ('start,end\n0,"00:00:01,12"\n', 2, "may be frames or hundredths"),
        ("start;end\n0;00:00:01,12\n", 2, "may be frames or hundredths"),
        ("start\tend\n0\t00:00:01,12\n", 2, "may be frames or hundredths"),
        ("start,end\n0,1\nTotal\n", 3, "1 cells, fewer"),
        ("start,end\n0,00:00:00:24\n", 2, "goes to 23:59:59:23"),
        ("start,end\n0,1\n100,101\n", 3, "the film goes from 0 to 3.96"),
        ("start,end\n0,1\n2,2\n", 3, "holds no picture"),
    ],
)
def test_wrong_cells_are_named_with_their_line(film: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(InvalidShotList, match=rf"list\.csv, line {line}: .*{words}"):
        read(film, "list.csv", text)


def test_shots_that_overlap_are_named_with_their_lines(film: Path) -> None:
    with pytest.raises(InvalidShotList, match=r"0\.00 s \(line 3\) and 0\.50 s \(line 2\) overlap"):
        read(film, "list.csv", "start,end\n0.5,2\n0,1\n")


PYSCENEDETECTS = """* CREATED WITH PYSCENEDETECT 0.7.2
TITLE: a
FCM: NON-DROP FRAME

001  AX V     C        00:00:00:00 00:00:01:06 00:00:00:00 00:00:01:06
002  AX V     C        00:00:01:06 00:00:03:03 00:00:01:06 00:00:03:03
003  AX V     C        00:00:03:08 00:00:03:23 00:00:03:08 00:00:03:23
"""


def test_an_edl_of_pyscenedetect(film: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(read(film, "list.edl", PYSCENEDETECTS))
    # It counts from 0 in a film that has a timecode, too.
    path = film.with_name("timecode.mkv")
    copied = ("-an", "-c", "copy", "-metadata", "timecode=01:00:00:00")
    command = ["ffmpeg", "-v", "error", "-i", str(film), *copied, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    check(read(path, "list.edl", PYSCENEDETECTS))
    assert "list.edl counts from 00:00:00:00, and the film from 01:00:00:00" in caplog.text
    check(read(path, "list.edl", EDL.replace(" 00:00:", " 01:00:")))


def test_shots_of_other_media_are_left_out(film: Path, caplog: pytest.LogCaptureFixture) -> None:
    named = Path(shutil.copy(film, film.with_name("a film.mp4")))
    first, second, third = (line for line in EDL.splitlines(keepends=True) if line[0] == "0")
    tape = second.replace("AX   ", "TAPE7")
    with_reel = (first + tape + third).replace("AX   ", "AFILM")
    with_clips = (
        f"{first}* FROM CLIP NAME: A Film.MOV\n{second}* FROM CLIP NAME: b.mov\n{third}* SOURCE FILE: C:\\a film.mov\n"
    )
    for text in (with_reel, with_clips):
        shots = read(named, "list.edl", text)
        assert [(shot.first_frame, shot.end_frame) for shot in shots] == [SHOTS[0], SHOTS[2]]
        assert "is left out (1 shots)" in caplog.text
    with pytest.raises(InvalidShotList, match=r"of several media \(AX, TAPE7\), and none is named a film\.mp4"):
        read(named, "list.edl", first + tape + third)


def test_an_edl_by_its_place_in_the_film_not_in_the_cut(film: Path) -> None:
    shots = read(film, "list.edl", EDL)
    check(shots)
    assert shots[0].name == "first"


def timeline(start: int, *, told: bool) -> str:
    """Three clips of a film whose first picture is frame `start`."""
    track = otio.schema.Track(kind="Video")
    for number, (first, last) in enumerate(SHOTS):
        whole = otio.opentime.TimeRange(otio.opentime.RationalTime(start, RATE), otio.opentime.RationalTime(95, RATE))
        media = otio.schema.ExternalReference("file:///a.mp4", whole if told else None)
        shown = otio.opentime.TimeRange(
            otio.opentime.RationalTime(start + first, RATE), otio.opentime.RationalTime(last - first, RATE)
        )
        track.append(otio.schema.Clip(f"clip {number}", media, shown))
    made = otio.schema.Timeline("cut")
    made.tracks.append(track)
    return str(otio.adapters.write_to_string(made, "otio_json"))


@pytest.mark.parametrize(("start", "told"), [(0, False), (0, True), (86_400, True)])
def test_a_timeline(film: Path, start: int, told: bool) -> None:
    check(read(film, "list.otio", timeline(start, told=told)), ["clip 0", "clip 1", "clip 2"])


def without_ranges() -> str:
    track = otio.schema.Track(kind="Video")
    track.append(otio.schema.Clip("clip"))
    made = otio.schema.Timeline("cut")
    made.tracks.append(track)
    return str(otio.adapters.write_to_string(made, "otio_json"))


RANGELESS = without_ranges()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("list.csv", "a,b\n1,2\n", "columns start and end"),
        ("list.csv", "start,end\n", "no shot"),
        ("list.csv", "start,end\n0\n", "fewer"),
        ("list.csv", "start,end\n0,soon\n", "looks like"),
        ("list.csv", "start,end\n0,1\n0.5,2\n", "overlap"),
        ("list.csv", "start,end\n0.5,0.5\n", "no picture"),
        ("list.csv", "start,end\n100,101\n", "goes from 0 to 3.96"),
        ("list.csv", "start,end\n01:00:00:00,01:00:01:00\n", "start timecode"),
        ("list.csv", 'start,end\n"' + "x" * 200_000, "no table"),
        ("list.otio", RANGELESS, "neither where it begins"),
        ("list.edl", "no list at all", "."),
        ("list.edl", EDL.replace("00:00:03:23", "00:00:99:23"), "can't be read"),
        ("list.otio", "{}", "."),
        ("list.otio", "[", "can't be read"),
        ("list.txt", "start,end\n0,1\n", r"ends in \.csv"),
    ],
)
def test_what_is_no_list(film: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(InvalidShotList, match=words):
        read(film, name, text)


def test_no_such_list_and_no_text(film: Path) -> None:
    with pytest.raises(InvalidShotList, match="No such file"):
        read_shot_list(film.parent / "nowhere.csv", film)
    (film.parent / "bytes.csv").write_bytes(b"start,end\n\xff\xfe,1")
    with pytest.raises(InvalidShotList, match="UTF-8"):
        read_shot_list(film.parent / "bytes.csv", film)


def test_timecodes_count_from_the_films() -> None:
    time = FilmTime(Fraction(30_000, 1001), "01:00:00;00")
    assert time.parse("01:01:00;02") == pytest.approx(60.06)
    assert time.parse("01:10:00;00") == pytest.approx(600, abs=0.001)
    assert FilmTime(Fraction(24), None).parse("00:00:01:12") == 1.5


def test_times_without_decoding_are_those_of_decoding(tmp_path: Path) -> None:
    uneven = write_film(tmp_path / "a.mkv", scenes(4), times=[5.0, 5.1, 5.4, 6.0])
    for path in (ROOT / "samples/sintel-trailer.mp4", uneven, write_film(tmp_path / "a.avi", scenes(30))):
        starts, end = picture_times(path)
        decoded = list(frames(path))
        assert starts == pytest.approx([frame.start for frame in decoded], abs=1e-6)
        assert end == pytest.approx(decoded[-1].end, abs=1e-6)
