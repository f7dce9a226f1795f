"""Rate and start timecode of films as cameras, browsers and editing programs write them."""

from __future__ import annotations

import struct
import subprocess
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from qwen_shots.client.describe import describe
from qwen_shots.client.exports.cutlist import film_cuts, timebase_of
from qwen_shots.client.exports.edl import to_edls
from qwen_shots.client.exports.fcpxml import to_fcpxml
from qwen_shots.client.film import frames
from qwen_shots.client.store import FilmRecord, ShotRecord
from qwen_shots.client.timecode_track import timecode_track_rate


def make(path: Path, rate: str, seconds: float, *arguments: str) -> Path:
    """A grey film, written by ffmpeg."""
    source = f"color=0x405060:s=64x48:r={rate}:d={seconds}"
    coded = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "0")
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *coded, *arguments, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def ffprobe(path: Path, entry: str) -> str:
    command = ["ffprobe", "-v", "error", "-show_entries", entry, "-of", "default=nw=1:nk=1", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]


def cut_at(film: FilmRecord, seconds: float) -> str:
    """The source timecode of a shot that begins there."""
    shot = ShotRecord(1, seconds, seconds + 1, 0, 0)
    (text,) = to_edls(film_cuts(film, [shot], timebase_of(film)))
    (event,) = (line.split() for line in text.splitlines() if line.startswith("001"))
    return event[4]


# --- rates -----------------------------------------------------------------------------------------------------------


def test_a_phones_film_counts_at_the_rate_that_is_meant(tmp_path: Path) -> None:
    uneven = ("-vf", "select='gt(mod(n,50),0)+eq(n,0)'", "-fps_mode", "vfr", "-video_track_timescale", "600")
    film = describe(make(tmp_path / "a.mov", "30", 25, *uneven), "")
    assert film.frame_rate == 30
    assert (cut_at(film, 4), cut_at(film, 20)) == ("00:00:04:00", "00:00:20:00")
    root = ET.fromstring(to_fcpxml(film_cuts(film, [ShotRecord(1, 0, 1, 0, 0)], timebase_of(film))))
    frame = root.find(".//format")
    assert frame is not None
    assert frame.attrib["frameDuration"] == "1/30s"


def without_rate(path: Path) -> Path:
    """Take the pictures' duration out of a Matroska header (element 23E383), as browsers leave it out."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x23\xe3\x83")
    length = data[at + 3] & 0x7F
    data[at : at + 2] = bytes([0xEC, 0x80 | length + 2])  # a void element of the same size
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("rate", [15, 24, 25, 30, 60])
def test_a_browsers_film_counts_at_the_rate_of_its_pictures(tmp_path: Path, rate: int) -> None:
    """Its header has no rate, and its times are milliseconds: every 50th picture is missing, the others are late."""
    uneven = f"select='gt(mod(n,50),0)+eq(n,0)',settb=1/1000,setpts='PTS+random(1)*{400 // rate}'"
    fast = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8")
    timed = ("-fps_mode", "passthrough", "-enc_time_base", "1/1000")
    path = without_rate(make(tmp_path / "a.webm", str(rate), 12, "-vf", uneven, *timed, *fast))
    assert ffprobe(path, "stream=r_frame_rate") == "1000/1"
    film = describe(path, "")
    assert film.frame_rate == rate
    assert cut_at(film, 10) == "00:00:10:00"


@pytest.mark.parametrize(
    "rate", ["12", "15", "18", "24000/1001", "30000/1001", "50", "60000/1001", "100", "120", "240"]
)
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_even_rates_stay(tmp_path: Path, rate: str, ending: str) -> None:
    path = make(tmp_path / f"a.{ending}", rate, 2)
    assert describe(path, "").frame_rate == Fraction(rate)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("rate", ["1/2", "1/3", "1/10"])
def test_slides(tmp_path: Path, rate: str, ending: str) -> None:
    assert describe(make(tmp_path / f"a.{ending}", rate, 60), "").frame_rate == Fraction(rate)


@pytest.mark.parametrize(("rate", "sparse"), [(240, 12), (120, 9), (60, 7)])
def test_a_film_of_a_dense_and_a_sparse_part(tmp_path: Path, rate: int, sparse: int) -> None:
    """Copied to Matroska, its header has the mean of both as the rate."""
    uneven = ("-vf", f"select='lt(n,400)+not(mod(n,{sparse}))'", "-fps_mode", "vfr")
    film = make(tmp_path / "a.mp4", str(rate), 1500 / rate, *uneven)
    copy = film.with_suffix(".mkv")
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(film), "-c", "copy", str(copy)], check=True)
    assert describe(film, "").frame_rate == describe(copy, "").frame_rate == rate


def test_timecode_counts_from_the_first_picture(tmp_path: Path) -> None:
    """Whatever a player's clock says then."""
    path = make(tmp_path / "a.mp4", "25", 2)
    film = describe(path, "")
    assert film.first_picture == next(frames(path)).start
    late = FilmRecord(path, 1, "", 3.0, Fraction(25), "01:00:00:00", 64, 48, "", first_picture=0.52)
    assert cut_at(late, 0.52) == "01:00:00:00"
    assert cut_at(late, 1.52) == "01:00:01:00"


# --- start timecodes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "timecode"),
    [
        ("24000/1001", "01:00:00:00"),
        ("25", "23:59:55:24"),
        ("30000/1001", "00:59:55;00"),
        ("30000/1001", "00:59:55:00"),
        ("60000/1001", "00:01:00;04"),
        ("30", "16:37:10;02"),
        ("50", "10:00:00:49"),
    ],
)
def test_it_is_the_timecode_of_ffprobe(tmp_path: Path, rate: str, timecode: str) -> None:
    path = make(tmp_path / "a.mov", rate, 0.5, "-timecode", timecode)
    assert describe(path, "").start_timecode == ffprobe(path, "stream_tags=timecode") == timecode
    assert timecode_track_rate(path) == Fraction(rate)


def test_a_camera_that_drops_frames_at_30(tmp_path: Path) -> None:
    """Final Cut Pro's own XML of such a film starts its asset at 298851/5 s."""
    path = make(tmp_path / "a.mov", "30", 6, "-timecode", "16:37:10;02")
    film = describe(path, "")
    cuts = film_cuts(film, [ShotRecord(1, 0, 6, 0, 180)], timebase_of(film))
    asset = ET.fromstring(to_fcpxml(cuts)).find(".//asset")
    assert asset is not None
    assert asset.attrib["start"] == "298851/5s"
    (edl,) = to_edls(cuts)
    assert "FCM: DROP FRAME" in edl
    assert "16:37:10;02 16:37:16;02" in edl
    passes_a_minute = describe(make(tmp_path / "b.mov", "30", 6, "-timecode", "16:37:55;00"), "")
    assert cut_at(passes_a_minute, 5) == "16:38:00;02"


def halve(path: Path, start: int) -> Path:
    """Let a film's timecode track count every other picture, from `start` on."""
    data = bytearray(path.read_bytes())
    name = b"tmcd" + bytes(7) + b"\1" + bytes(4)  # the sample description: reserved, data reference 1, reserved
    entry = data.index(name) + len(name)
    flags, timescale, duration, numbers = struct.unpack_from(">IIIB", data, entry)
    struct.pack_into(">IIIB", data, entry, flags, timescale, 2 * duration, numbers // 2)
    # The track's one sample is the first frame's number, where its chunk offset says.
    offset = data.index(b"stco", entry) + 12
    (sample,) = struct.unpack_from(">I", data, offset)
    struct.pack_into(">I", data, sample, start)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("rate", "written", "start", "read", "counted"),
    [
        ("50", "10:00:00:00", 36_000 * 25 + 20, "10:00:00:20", "10:00:00:40"),
        # 29.97 drop: number 2 of minute 1 is frame 1800.
        ("60000/1001", "10:00:00;00", 1_800, "00:01:00;02", "00:01:00;04"),
        ("60000/1001", "10:00:00;00", 17_981, "00:09:59;29", "00:09:59;58"),
    ],
)
def test_a_timecode_track_of_half_the_rate(
    tmp_path: Path, rate: str, written: str, start: int, read: str, counted: str
) -> None:
    path = halve(make(tmp_path / "a.mov", rate, 2, "-timecode", written), start)
    assert ffprobe(path, "stream_tags=timecode") == read
    assert timecode_track_rate(path) == Fraction(rate) / 2
    film = describe(path, "")
    assert (film.frame_rate, film.start_timecode) == (Fraction(rate), counted)
    assert cut_at(film, 0) == counted


def test_no_timecode_track(tmp_path: Path) -> None:
    assert timecode_track_rate(make(tmp_path / "a.mp4", "25", 0.5)) is None
    assert timecode_track_rate(make(tmp_path / "a.mkv", "25", 0.5, "-metadata", "timecode=01:00:00:00")) is None
    assert describe(tmp_path / "a.mkv", "").start_timecode == "01:00:00:00"
    broken = tmp_path / "broken.mov"
    broken.write_bytes(struct.pack(">I4sI4sI4s", 8, b"wide", 16, b"moov", 1, b"trak"))
    assert timecode_track_rate(broken) is None
