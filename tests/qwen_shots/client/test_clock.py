"""When a player shows which picture: films of all kinds, of numbered pictures, in Chromium and by ffprobe.

The pictures bear their numbers, so what is seen is known from the film's making.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import webvtt
from PIL import Image
from playwright.sync_api import Browser

from qwen_shots.client.exports.webvtt import to_webvtt
from qwen_shots.client.film import FilmFrame, frames, picture_times
from qwen_shots.client.moments import milliseconds
from qwen_shots.client.report.page import _moment
from qwen_shots.client.shots import find_borders
from qwen_shots.client.soundtrack import RATE as SOUND_RATE
from qwen_shots.client.soundtrack import sounds_of
from qwen_shots.client.store import ShotRecord
from tests.qwen_shots.client.boxes import change, edit_list
from tests.qwen_shots.client.clips import HEIGHT, RATE, WIDTH, number_of, scenes

LENGTHS = (20, 24, 16)
CUTS = (20, 44)
EDITED_CUTS = (24, 44)  # where pictures 12 to 23 are never shown
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-g", "24", "-pix_fmt", "yuv420p")
VP8 = ("-c:v", "libvpx", "-b:v", "2M", "-g", "24")
BEEP = ("-f", "lavfi", "-i", "sine=500:r=48000:d=2.5")
LATE = ("-itsoffset", "0.033")

Make = Callable[[Path, Path], None]


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes of numbered pictures, as they are, without loss; cuts at CUTS."""
    path = tmp_path_factory.mktemp("source") / "source.mkv"
    raw = b"".join(picture.tobytes() for picture in scenes(*LENGTHS))
    arguments = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", f"{RATE}", "-i", "-")
    subprocess.run(["ffmpeg", "-v", "error", *arguments, "-c:v", "ffv1", str(path)], check=True, input=raw)
    return path


def coded(*arguments: object, before: tuple[object, ...] = ()) -> Make:
    return lambda source, path: ffmpeg(*before, "-i", source, *arguments, path)


def with_sound(*arguments: object, before: tuple[object, ...] = ()) -> Make:
    return lambda source, path: ffmpeg(*before, "-i", source, *BEEP, "-map", "0:v", "-map", "1:a", *arguments, path)


def cut_without_coding(source: Path, path: Path) -> None:
    """Begin between two key frames: the pictures from the one before stay in the file, and an edit list hides them."""
    whole = path.with_name("whole.mp4")
    coded(*H264)(source, whole)
    ffmpeg("-ss", 30.2 / RATE, "-i", whole, "-c", "copy", path)


def two_edits(source: Path, path: Path) -> None:
    """Show pictures 0 to 11, and then those from 24 on: an edit list of two entries."""
    coded(*H264, "-bf", "0", "-movie_timescale", "24000", "-video_track_timescale", "24000")(source, path)
    edits = edit_list([(12_000, 0), (36_000, 24_000)])
    path.write_bytes(change(path.read_bytes(), b"elst", lambda _: edits))


def begun_in_mid_gop(source: Path, path: Path) -> None:
    """A recording of a transport stream that was switched on at some moment."""
    whole = path.with_name("whole.ts")
    with_sound(*H264, "-c:a", "mp2", "-muxrate", "2M", "-pat_period", "0.05")(source, whole)
    data = whole.read_bytes()
    path.write_bytes(data[len(data) // 8 // 188 * 188 :])


# What Chromium plays, with where the first picture lies.
PLAYED: dict[str, tuple[str, Make]] = {
    "at 0": ("a.mp4", coded(*H264)),
    "no edit list: two pictures late": ("a.mp4", coded(*H264, "-use_editlist", 0)),
    "no edit list, sound from 0": ("a.mp4", with_sound(*H264, "-c:a", "aac", "-use_editlist", 0)),
    "at 0.033": ("a.webm", coded(*VP8, before=LATE)),
    "a second late": ("a.webm", coded(*VP8, before=("-itsoffset", "1"))),
    "an empty edit": ("a.mp4", coded(*H264, "-copyts", before=("-itsoffset", "1"))),
    "the container begins below 0": (
        "a.mp4",
        with_sound(*H264, "-c:a", "aac", "-movflags", "+delay_moov+frag_keyframe"),
    ),
    "fragments": ("a.mp4", with_sound(*H264, "-c:a", "aac", "-movflags", "+empty_moov+frag_keyframe")),
    "Matroska": ("a.mkv", with_sound(*H264, "-c:a", "aac")),
    "WebM": ("a.webm", with_sound(*VP8, "-c:a", "libopus")),
    "WebM, live": ("a.webm", coded(*VP8, "-live", 1)),
    "edit list": ("a.mp4", cut_without_coding),
    "two edits": ("a.mp4", two_edits),
}

# What it doesn't: players count from the container's start, which ffprobe names.
NOT_PLAYED: dict[str, tuple[str, Make]] = {
    "AVI": ("a.avi", coded("-c:v", "mpeg4", "-q:v", "2", "-bf", "0")),
    "AVI, sound": ("a.avi", with_sound("-c:v", "mpeg4", "-q:v", "2", "-bf", "0", "-c:a", "mp3")),
    "transport stream": ("a.ts", with_sound(*H264, "-c:a", "aac")),
    "transport stream begun in mid GOP": ("a.ts", begun_in_mid_gop),
    "programme stream": (
        "a.mpg",
        with_sound("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-c:a", "mp2", "-f", "vob"),
    ),
    "FLV": ("a.flv", with_sound(*H264, "-c:a", "aac", before=LATE)),
    "Windows Media": ("a.wmv", with_sound("-c:v", "wmv2", "-q:v", "2", "-c:a", "wmav2")),
}

SHOWN = """async ([data, times]) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const video = document.createElement("video"), canvas = document.createElement("canvas");
    const once = (name) => new Promise((resolve, reject) => {
        video.addEventListener(name, resolve, {once: true});
        video.onerror = () => reject(new Error(video.error.message));
    });
    const loaded = once("loadeddata");
    video.muted = true;
    video.src = URL.createObjectURL(new Blob([bytes]));
    await loaded;
    const seen = [];
    for (const time of times) {
        const sought = once("seeked");
        video.currentTime = time;
        await sought;
        [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
        canvas.getContext("2d").drawImage(video, 0, 0);
        seen.push(canvas.toDataURL("image/png").split(",")[1]);
    }
    return seen;
}"""


def shown_in(browser: Browser, path: Path, times: list[float]) -> list[int]:
    """The numbers of the pictures that Chromium shows at these times."""
    page = browser.new_page()
    seen = page.evaluate(SHOWN, [base64.b64encode(path.read_bytes()).decode(), times])
    page.close()
    return [number_of(Image.open(io.BytesIO(base64.b64decode(png)))) for png in seen]


def number_on(frame: FilmFrame) -> int:
    return number_of(Image.fromarray(np.asarray(frame.picture.to_ndarray(format="rgb24"), np.uint8)))


@pytest.mark.parametrize("name", PLAYED)
def test_a_browser_shows_each_shots_first_picture_at_its_time(
    tmp_path: Path, source: Path, browser: Browser, name: str
) -> None:
    file, make = PLAYED[name]
    make(source, path := tmp_path / file)
    decoded = list(frames(path))
    borders = list(find_borders(path))
    firsts = [number_on(decoded[border.frame]) for border in borders[:-1]]
    assert firsts[1:] == list({"edit list": CUTS[1:], "two edits": EDITED_CUTS}.get(name, CUTS))
    times = [milliseconds(border.time) / 1000 for border in borders[:-1]]
    before = [border.time - 0.001 for border in borders[1:-1]]
    last_before = [number_on(decoded[border.frame - 1]) for border in borders[1:-1]]
    assert shown_in(browser, path, [*times, *before]) == [*firsts, *last_before]


@pytest.mark.parametrize("name", NOT_PLAYED)
def test_other_formats_count_from_the_containers_start(tmp_path: Path, source: Path, name: str) -> None:
    file, make = NOT_PLAYED[name]
    make(source, path := tmp_path / file)
    entries = "frame=best_effort_timestamp_time:format=start_time"
    command = ["ffprobe", "-v", "error", "-of", "json", "-select_streams", "v:0", "-show_entries", entries, str(path)]
    probed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    origin = float(probed["format"]["start_time"])
    expected = [frame.get("best_effort_timestamp_time") for frame in probed["frames"]]  # MPEG-2 has not all
    decoded = list(frames(path))
    known = [(frame.start, float(time) - origin) for frame, time in zip(decoded, expected, strict=True) if time]
    assert len(known) >= len(decoded) - 1
    assert [start for start, _ in known] == pytest.approx([time for _, time in known], abs=1e-3)
    assert picture_times(path) == ([frame.start for frame in decoded], decoded[-1].end)
    numbers = [number_on(frame) for frame in decoded]
    assert numbers == list(range(numbers[0], 60))
    assert (numbers[0] > 0) == (name == "transport stream begun in mid GOP")
    cuts = [numbers[border.frame] for border in list(find_borders(path))[1:-1]]
    assert cuts == [cut for cut in CUTS if cut > numbers[0] + RATE / 2]


@pytest.mark.parametrize("codec", ["mpeg4 -bf 2", "libx264 -bf 3 -b_strategy 0", "mpeg2video -bf 2"])
def test_avi_has_no_presentation_times(tmp_path: Path, source: Path, codec: str) -> None:
    """Its pictures lie in the order of decoding; a player shows the first one at 0 and each after the one before."""
    ffmpeg("-i", source, "-c:v", *codec.split(), "-g", 12, "-q:v", 2, "-pix_fmt", "yuv420p", path := tmp_path / "a.avi")
    decoded = list(frames(path))
    assert [number_on(frame) for frame in decoded] == list(range(60))
    assert [frame.start for frame in decoded] == pytest.approx([number / RATE for number in range(60)])
    assert picture_times(path)[0] == [frame.start for frame in decoded]


@pytest.mark.parametrize("start", [0.0, 20 / 24, 0.9166667, 1.001, 2.5, 20 * 1001 / 30_000, 7199.999])
def test_links_and_captions_begin_with_the_picture_and_not_before(start: float) -> None:
    """Chromium has the picture at the nearest microsecond, and cuts a time that it is asked for to microseconds."""
    shot = ShotRecord(1, start, start + 1, 0, 24, caption="A street.", attempts=1)
    (cue,) = webvtt.from_string(to_webvtt([shot])).captions
    hours, minutes, seconds = cue.start.split(":")
    for written in (round(int(hours) * 3600 + int(minutes) * 60 + float(seconds), 3), float(_moment(start))):
        assert int(written * 1e6) >= round(start * 1e6)
        assert written <= start + 0.002


def test_no_time_is_left_out_between_two_pictures(tmp_path: Path, source: Path) -> None:
    uneven = ("-vf", "select='not(mod(n,7))+lt(mod(n,3),1)'", "-fps_mode", "vfr")
    ffmpeg("-i", source, *uneven, *VP8, path := tmp_path / "a.webm")
    decoded = list(frames(path))
    assert len({round(frame.end - frame.start, 2) for frame in decoded}) > 1
    assert all(one.end == other.start for one, other in pairwise(decoded))


@pytest.mark.parametrize("late", [0.0, 1.0])
@pytest.mark.parametrize("file", ["a.mkv", "a.ts", "a.mp4"])
def test_sound_is_on_the_same_clock(tmp_path: Path, source: Path, file: str, late: float) -> None:
    """A beep from the moment of the first cut to the second one."""
    begin, end = (cut / RATE for cut in CUTS)
    beep = f"aevalsrc='0.3*sin(500*2*PI*t)*between(t,{begin},{end})':s=48000:d=2.5"
    sound = ("-itsoffset", late, "-f", "lavfi", "-i", beep)
    ffmpeg("-itsoffset", late, "-i", source, *sound, *H264, "-c:a", "mp2", path := tmp_path / file)
    shots = [ShotRecord(1, one.time, two.time, one.frame, two.frame) for one, two in pairwise(find_borders(path))]
    heard = [np.abs(sound).mean() for sound in sounds_of(path, shots) if sound is not None]
    assert heard[1] > 20 * heard[0]
    assert heard[1] > 20 * heard[2]
    (edge,) = sounds_of(path, [ShotRecord(1, shots[1].start - 0.1, shots[1].start + 0.1, 0, 1)])
    assert edge is not None
    assert np.argmax(np.abs(edge) > 0.02) / SOUND_RATE == pytest.approx(0.1, abs=0.03)
