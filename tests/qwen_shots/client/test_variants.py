"""Real clips in many guises, made with ffmpeg, and checked against what ffprobe and librosa say of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from qwen_shots.client.analysis import FilmRun
from qwen_shots.client.api import ShotClient
from qwen_shots.client.describe import describe
from qwen_shots.client.film import frames, picture_times
from qwen_shots.client.frames import stills_of, times_of
from qwen_shots.client.shots import Shot, find_shots
from qwen_shots.client.sound import features_of
from qwen_shots.client.soundtrack import RATE, sounds_of
from qwen_shots.client.store import ShotRecord
from qwen_shots.schemas import AudioFeatures
from tests.helpers import ROOT
from tests.qwen_shots.client.clips import opened, set_rotation

SINTEL = ROOT / "samples/sintel-trailer.mp4"
BUNNY = ROOT / "samples/big-buck-bunny-30s.mp4"
SECONDS = 6
X264 = ("-c:v", "libx264", "-preset", "ultrafast")
PICTURE = ("-map", "0:v", *X264)
SHOT = Shot(2.0, 4.5)


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


def ffprobe(path: Path, *arguments: str) -> Any:
    command = ["ffprobe", "-v", "error", "-of", "json", *arguments, str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def shown_at(path: Path, stream: str = "v:0") -> NDArray[np.float64]:
    """Seconds of each picture as players show it, from ffprobe: test_clock.py has the rule and a browser for it."""
    entries = "frame=best_effort_timestamp_time:format=start_time"
    told = ffprobe(path, "-select_streams", stream, "-show_entries", entries)
    times = np.array(sorted(float(frame["best_effort_timestamp_time"]) for frame in told["frames"]))
    return times - (0 if path.suffix in {".mp4", ".mkv"} else float(told["format"]["start_time"]))


def variant(path: Path, *arguments: object, clip: Path = BUNNY) -> Path:
    """A few seconds of a clip, changed."""
    ffmpeg("-t", SECONDS, "-i", clip, *arguments, path)
    return path


VARIANTS: dict[str, tuple[str, tuple[object, ...]]] = {
    "plain": ("a.mp4", (*PICTURE, "-map", "0:a", "-c:a", "copy")),
    "mkv": ("a.mkv", (*PICTURE, "-map", "0:a", "-c:a", "ac3")),
    "uneven": ("a.mkv", ("-map", "0:v", "-vf", "select='not(mod(n,7))+lt(mod(n,3),2)'", "-vsync", "vfr", *X264)),
    "29.97": ("a.mp4", ("-map", "0:v", "-r", "30000/1001", *X264)),
    "b-frames": ("a.mp4", ("-map", "0:v", "-c:v", "libx264", "-preset", "veryfast", "-bf", "3")),
    "delayed picture": ("a.mkv", ("-map", "0:v", "-vf", "setpts=PTS+1.5/TB", *X264, "-map", "0:a", "-c:a", "copy")),
    "transport stream": ("a.ts", (*PICTURE, "-map", "0:a", "-c:a", "aac", "-ac", "2")),
    "mpeg-2": ("a.mpg", ("-map", "0:v", "-c:v", "mpeg2video", "-q:v", "4")),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_times_are_ffprobes(tmp_path: Path, name: str) -> None:
    file, arguments = VARIANTS[name]
    path = variant(tmp_path / file, *arguments)
    expected = shown_at(path)
    assert [frame.start for frame in frames(path)] == pytest.approx(expected.tolist(), abs=1e-4)
    assert picture_times(path)[0] == pytest.approx(expected.tolist(), abs=1e-4)
    (stills,) = stills_of(path, [SHOT])
    assert len(stills) == 5
    for still, time in zip(stills, times_of(SHOT), strict=True):
        assert still.time == pytest.approx(expected[expected <= time + 1e-6].max(), abs=1e-4)


def test_the_clips_own_times_are_ffprobes() -> None:
    for clip in (SINTEL, BUNNY):
        assert [frame.start for frame in frames(clip)] == pytest.approx(shown_at(clip).tolist(), abs=1e-4)


# --- the picture -----------------------------------------------------------------------------------------------------


def first_still(path: Path, shot: Shot = SHOT) -> NDArray[np.float64]:
    (stills,) = stills_of(path, [shot])
    return np.asarray(opened(stills[0].jpeg), np.float64)


def test_rotated(tmp_path: Path) -> None:
    plain = variant(tmp_path / "plain.mp4", *PICTURE)
    turned = Path(shutil.copy(plain, tmp_path / "turned.mp4"))
    set_rotation(turned, 1)
    assert (describe(turned, "").width, describe(turned, "").height) == (480, 854)
    upright, sideways = first_still(plain), first_still(turned)
    assert sideways.shape == (720, 405, 3)
    assert np.abs(np.rot90(upright, -1) - sideways).mean() < 2


def test_anamorphic(tmp_path: Path) -> None:
    path = variant(tmp_path / "a.mp4", "-map", "0:v", "-vf", "scale=720:480,setsar=32/27", *X264)
    assert (describe(path, "").width, describe(path, "").height) == (853, 480)
    assert first_still(path).shape == (405, 720, 3)
    assert np.abs(first_still(path) - first_still(variant(tmp_path / "b.mp4", *PICTURE))).mean() < 4


def test_interlaced(tmp_path: Path) -> None:
    """A bar that moves fast: in woven fields its edge is a comb."""
    moving = "color=black:s=640x360:r=50:d=3[b];color=white:s=80x360:r=50:d=3[w];[b][w]overlay=x=mod(n*16\\,560)"
    path = tmp_path / "a.mp4"
    coded = ("-c:v", "libx264", "-preset", "ultrafast", "-flags", "+ilme+ildct", "-pix_fmt", "yuv420p")
    ffmpeg("-filter_complex", f"{moving},tinterlace=interleave_top,setfield=tff", *coded, path)
    assert next(frames(path)).picture.interlaced_frame
    for number in range(5):
        (stills,) = stills_of(path, [Shot(0, 2)])
        image = np.asarray(opened(stills[number].jpeg).convert("L"), np.float64)
        assert np.abs(np.diff(image, axis=0)).mean() < 0.5
        assert image.max() > 200


def test_the_film_is_taken_and_not_what_comes_with_it(tmp_path: Path) -> None:
    """A cover, a second angle, a commentary; the default tracks stand last."""
    film = tmp_path / "a.mkv"
    ffmpeg(
        "-f", "lavfi", "-i", f"color=red:s=320x240:r=24:d={SECONDS}",
        "-f", "lavfi", "-i", f"sine=300:r=44100:d={SECONDS}", "-f", "lavfi", "-i", f"sine=900:r=44100:d={SECONDS}",
        "-t", SECONDS, "-i", BUNNY,
        "-map", "0:v", "-map", "3:v", "-map", "1:a", "-map", "2:a", *X264, "-c:a", "aac",
        "-disposition:v:0", "0", "-disposition:v:1", "default",
        "-disposition:a:0", "comment", "-disposition:a:1", "default", film,
    )  # fmt: skip
    assert (describe(film, "").width, describe(film, "").height) == (854, 480)
    (heard,) = sounds_of(film, [SHOT])
    assert heard is not None
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.fft.rfftfreq(len(heard), 1 / RATE)[spectrum.argmax()] == pytest.approx(900, abs=2)


def test_timecodes(tmp_path: Path) -> None:
    path = variant(tmp_path / "a.mp4", *PICTURE, "-timecode", "01:02:03:04")
    assert describe(path, "").start_timecode == "01:02:03:04"
    dropped = variant(tmp_path / "b.mov", "-map", "0:v", "-r", "30000/1001", *X264, "-timecode", "10:00:00;00")
    assert describe(dropped, "").start_timecode == "10:00:00;00"
    assert describe(variant(tmp_path / "c.mp4", *PICTURE), "").start_timecode is None


def test_a_timecode_that_is_none_at_the_films_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Frame 29 at 24 a second: nobody could export such a film, and only who made it could mend it."""
    tagged = variant(tmp_path / "a.mkv", *PICTURE, "-metadata", "timecode=01:00:00:29")
    assert describe(tagged, "").start_timecode is None
    assert "start timecode" in caplog.text


def test_the_length_of_a_film_whose_header_tells_none(tmp_path: Path) -> None:
    raw = variant(tmp_path / "a.h264", *PICTURE)
    shots = [ShotRecord(1, 0.0, 2.0, 0, 48), ShotRecord(2, 2.0, 5.0, 48, 120)]
    with ShotClient("http://127.0.0.1:9", "") as client, FilmRun(raw, client, tmp_path / "out", shots=shots) as run:
        assert run.store.film.duration == 5.0


# --- the sound -------------------------------------------------------------------------------------------------------


def directly(path: Path, shot: Shot, folder: Path) -> dict[str, Any]:
    """The features by librosa's own functions, of the sound as ffmpeg decodes it."""
    wave = folder / "heard.wav"
    # One channel at librosa's rate, each channel counting the same; decoded from the film's beginning, without seeking.
    channels = ffprobe(path, "-select_streams", "a:0", "-show_entries", "stream=channels")["streams"][0]["channels"]
    mean = "+".join(f"{1 / channels}*c{number}" for number in range(channels))
    chain = f"aresample={RATE},pan=mono|c0={mean}"
    ffmpeg("-i", path, "-map", "0:a:0", "-af", chain, "-c:a", "pcm_f32le", wave)
    heard, rate = soundfile.read(wave, dtype="float32")
    assert rate == RATE
    y = np.clip(heard[round(shot.start * RATE) : round(shot.end * RATE)], -1, 1)
    mfcc = librosa.feature.mfcc(y=y, sr=RATE, n_mfcc=13)
    centroid = librosa.feature.spectral_centroid(y=y, sr=RATE)
    rms = librosa.feature.rms(y=y)
    return {
        "mfcc_mean": mfcc.mean(axis=1),
        "mfcc_std": mfcc.std(axis=1),
        "spectral_centroid_mean": centroid.mean(),
        "spectral_centroid_std": centroid.std(),
        "spectral_rolloff_mean": librosa.feature.spectral_rolloff(y=y, sr=RATE).mean(),
        "spectral_bandwidth_mean": librosa.feature.spectral_bandwidth(y=y, sr=RATE).mean(),
        "zero_crossing_rate_mean": librosa.feature.zero_crossing_rate(y).mean(),
        "rms_energy_mean": rms.mean(),
        "rms_energy_std": rms.std(),
        "chroma_mean": librosa.feature.chroma_stft(y=y, sr=RATE).mean(axis=1),
        "tempo": librosa.feature.tempo(y=y, sr=RATE)[0],
        "duration": len(y) / RATE,
    }


def check(found: AudioFeatures | None, expected: dict[str, Any]) -> None:
    """Equal within 1e-4, relative to the largest of a feature's values."""
    assert found is not None
    for name, values in expected.items():
        value = np.atleast_1d(np.asarray(values, np.float64))
        distance = np.abs(np.atleast_1d(getattr(found, name)) - value).max()
        assert distance <= 1e-4 * max(1.0, np.abs(value).max()), (name, getattr(found, name), values)


SOUNDS: dict[str, tuple[str, tuple[object, ...]]] = {
    "5.1": ("a.mp4", ("-c:a", "copy")),
    "5.1 ac3": ("a.mp4", ("-c:a", "ac3", "-b:a", "448k")),
    "stereo": ("a.mp4", ("-c:a", "aac", "-ac", 2)),
    "mono": ("a.mp4", ("-c:a", "aac", "-ac", 1)),
    "44100": ("a.mkv", ("-c:a", "pcm_s16le", "-ac", 2, "-ar", 44100)),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_features_are_librosas(tmp_path: Path, name: str) -> None:
    file, arguments = SOUNDS[name]
    path = variant(tmp_path / file, *PICTURE, "-map", "0:a", *arguments)
    (found,) = features_of(path, [SHOT])
    check(found, directly(path, SHOT, tmp_path))


def test_features_of_the_clips_are_librosas(tmp_path: Path) -> None:
    for clip in (SINTEL, BUNNY):
        shots = find_shots(clip)[1:3]
        for shot, found in zip(shots, features_of(clip, shots), strict=True):
            expected = directly(clip, shot, tmp_path)
            if shot.duration < 2:
                expected.pop("tempo")
                assert found is not None
                assert found.tempo is None
            check(found, expected)


def test_no_track_a_silent_one_and_one_that_starts_late(tmp_path: Path) -> None:
    (none,) = features_of(variant(tmp_path / "a.mp4", *PICTURE), [SHOT])
    assert none is None
    silence = variant(tmp_path / "b.mp4", *PICTURE, "-map", "0:a", "-af", "volume=0", "-c:a", "aac")
    (silent,) = features_of(silence, [SHOT])
    assert silent is not None
    assert silent.tempo is None
    assert silent.rms_energy_mean == pytest.approx(0, abs=1e-4)
    late = tmp_path / "c.mkv"
    plain = variant(tmp_path / "plain.mkv", *PICTURE, "-map", "0:a", "-c:a", "pcm_s16le", "-ac", 1)
    ffmpeg("-i", plain, "-itsoffset", 1.5, "-i", plain, "-map", "0:v", "-map", "1:a", "-c", "copy", late)
    (before, behind), (shifted,) = (
        list(sounds_of(late, [Shot(0, 1.4), Shot(3.5, 5.0)])),
        list(sounds_of(plain, [Shot(2.0, 3.5)])),
    )
    assert before is not None
    assert behind is not None
    assert shifted is not None
    assert np.abs(before).max() == 0
    assert np.abs(behind - shifted).max() < 0.01


def test_a_delayed_picture_takes_its_sound_along(tmp_path: Path) -> None:
    """The picture begins 1.5 s into the sound: what is heard then belongs to its first shot."""
    file, arguments = VARIANTS["delayed picture"]
    late = variant(tmp_path / file, *arguments)
    plain = variant(tmp_path / "plain.mkv", *PICTURE, "-map", "0:a", "-c:a", "copy")
    (heard,), (expected,) = list(sounds_of(late, [Shot(1.5, 3.5)])), list(sounds_of(plain, [Shot(1.5, 3.5)]))
    assert heard is not None
    assert expected is not None
    assert np.abs(heard - expected).mean() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize(("codec", "ending"), [("libx264", "ts"), ("mpeg2video", "ts"), ("mpeg2video", "vob")])
def test_pixels_that_change_their_shape_in_a_broadcast(tmp_path: Path, codec: str, ending: str) -> None:
    """A programme in 4:3 and one in 16:9, in PAL's pixels; a recording of both is shown in both shapes."""
    for name, aspect, start in (("old", "16/15", 0), ("new", "64/45", 1.2)):
        drawn = ("-f", "lavfi", "-i", f"testsrc=size=720x576:rate=25:duration=1,setsar={aspect}")
        ffmpeg(*drawn, "-c:v", codec, "-output_ts_offset", start, tmp_path / f"{name}.{ending}")
    path = tmp_path / f"both.{ending}"
    path.write_bytes((tmp_path / f"old.{ending}").read_bytes() + (tmp_path / f"new.{ending}").read_bytes())
    told = ffprobe(path, "-select_streams", "v", "-show_entries", "frame=sample_aspect_ratio")["frames"]
    said = [Fraction(frame["sample_aspect_ratio"].replace(":", "/")) for frame in told]
    shown = [frame.aspect for frame in frames(path)]
    assert set(said) == {Fraction(16, 15), Fraction(64, 45)}
    # ffprobe loses a picture where the two meet, or the last one.
    assert shown.index(Fraction(64, 45)) == said.index(Fraction(64, 45))
    assert shown[: len(said)] == said
    old, new = stills_of(path, [Shot(0.0, 0.8), Shot(1.3, 2.1)])
    assert {opened(still.jpeg).size for still in old} == {(720, 540)}
    assert {opened(still.jpeg).size for still in new} == {(720, 405)}


def test_the_shape_that_a_header_names_holds(tmp_path: Path) -> None:
    """Where file and coded pictures disagree, ffmpeg and players go by the file."""
    path = variant(tmp_path / "a.mkv", *PICTURE, "-vf", "setsar=16/15")
    ffmpeg("-i", path, "-c", "copy", "-aspect", "4:3", tmp_path / "b.mkv")
    told = ffprobe(tmp_path / "b.mkv", "-show_entries", "frame=sample_aspect_ratio", "-read_intervals", "%+0.1")
    expected = Fraction(told["frames"][0]["sample_aspect_ratio"].replace(":", "/"))
    assert expected != Fraction(16, 15)
    assert {frame.aspect for frame in frames(tmp_path / "b.mkv")} == {expected}
