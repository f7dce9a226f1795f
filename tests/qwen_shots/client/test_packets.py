"""Films with faults: odd tags, tracks that appear late, encryption, damage, and files that are none."""

from __future__ import annotations

import logging
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from qwen_shots.client import scrambling
from qwen_shots.client.describe import describe
from qwen_shots.client.errors import FilmCutShort, FilmDamaged, FilmEncrypted, NotAFilm
from qwen_shots.client.film import Film, frames, open_film, picture_times
from qwen_shots.client.packets import PacketReader
from qwen_shots.client.shots import Shot
from qwen_shots.client.soundtrack import RATE as SOUND_RATE
from qwen_shots.client.soundtrack import sounds_of
from tests.qwen_shots.client.clips import RATE, scenes, tone, write_film

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


# --- tags ------------------------------------------------------------------------------------------------------------

TAGS = {
    "a.avi": ("cp1251", "Кино", "-metadata", "title="),
    "a.mkv": ("latin-1", "été", "-metadata", "title="),
    "track.mkv": ("latin-1", "été", "-metadata:s:v", "title="),
    "a.mp4": ("latin-1", "café", "-metadata", "title="),
    "track.mp4": ("shift_jis", "映画映画", "-metadata:s:v", "handler_name="),
    "a.flv": ("shift_jis", "映画", "-metadata", "title="),
    "a.ts": ("cp1251", "Новости", "-metadata", "service_name="),
}


@pytest.mark.parametrize("name", TAGS)
def test_tags_that_are_not_utf8(tmp_path: Path, name: str) -> None:
    encoding, text, option, tag = TAGS[name]
    as_written = text.encode(encoding)
    mark = b"QZ" * 10
    codec = "flv" if name.endswith("flv") else "mpeg4"
    source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=24:d=0.5")
    ffmpeg(*source, option, tag + mark[: len(as_written)].decode(), "-c:v", codec, path := tmp_path / name)
    data = path.read_bytes()
    assert mark[: len(as_written)] in data
    path.write_bytes(data.replace(mark[: len(as_written)], as_written))
    assert len(list(frames(path))) == 12
    assert describe(path, "").width == 64


# --- what PyAV raises ------------------------------------------------------------------------------------------------


class Ending:
    """A container whose packets end in an error of PyAV's own."""

    def __init__(self, container: Any, error: Exception) -> None:
        self._container = container
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def demux(self, *streams: Any) -> Iterator[Any]:
        yield from self._container.demux(*streams)
        raise self._error


def ending(film: Film, error: Exception) -> Film:
    container: Any = Ending(film.container, error)
    return replace(film, container=container)


def test_a_track_that_appeared_in_mid_film_ends_it_with_an_index_error(tmp_path: Path) -> None:
    with open_film(write_film(tmp_path / "a.mp4", scenes(30))) as film:
        reader = PacketReader(ending(film, IndexError("list index out of range")))
        assert sum(packet.size > 0 for packet in reader.packets()) == 30
        reader.check()


def test_any_other_error_keeps_what_came_before_it(tmp_path: Path) -> None:
    with open_film(write_film(tmp_path / "a.mp4", scenes(30))) as film:
        reader = PacketReader(ending(film, UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")))
        assert sum(packet.size > 0 for packet in reader.packets()) == 30
        with pytest.raises(FilmCutShort, match="can't be read to its end"):
            reader.check()


def test_a_recording_over_two_changes_of_programme(tmp_path: Path) -> None:
    """For 2 s a second sound track is there; the file is too large for FFmpeg to see it when it opens it."""
    parts = []
    for number, sounds in enumerate((1, 2, 1)):
        inputs = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=24:d=4,noise=alls=60:allf=t"]
        for track in range(sounds):
            inputs += ["-f", "lavfi", "-i", f"sine={400 + 400 * track}:r=48000:d=4"]
        maps = [part for track in range(sounds + 1) for part in ("-map", str(track))]
        coded = ("-c:v", "mpeg2video", "-b:v", "8M", "-c:a", "mp2", "-output_ts_offset", 4 * number)
        ffmpeg(*inputs, *maps, *coded, "-f", "mpegts", part := tmp_path / f"{number}.ts")
        parts.append(part.read_bytes())
    (path := tmp_path / "a.ts").write_bytes(b"".join(parts))
    with open_film(path) as film:
        assert len(film.container.streams) == 2
    assert len(list(frames(path))) == len(picture_times(path)[0]) == 3 * 4 * 24
    (sound,) = sounds_of(path, [Shot(0, 12)])
    assert sound is not None
    assert len(sound) / SOUND_RATE == pytest.approx(12, abs=0.1)


def test_times_never_go_back(tmp_path: Path) -> None:
    """A second of a recording is there twice: its pictures come too late, and are shown at once."""
    parts = []
    for offset in (0, 1):
        source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=24:d=2", *X264, "-output_ts_offset", offset)
        ffmpeg(*source, "-f", "mpegts", part := tmp_path / f"{offset}.ts")
        parts.append(part.read_bytes())
    (path := tmp_path / "a.ts").write_bytes(b"".join(parts))
    spans = [(frame.start, frame.end) for frame in frames(path)]
    assert len(spans) == 2 * 48
    assert all(start <= end for start, end in spans)
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert spans[-1][1] == pytest.approx(3, abs=0.05)


# --- what is no film -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "substitution"])
def test_what_cant_be_read_twice_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """Nothing writes into the pipe, so an attempt to open it would wait for ever."""
    path = tmp_path / "a.ts"
    with socket.socket(socket.AF_UNIX) as listening:
        reading, writing = os.pipe()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            listening.bind(str(path))
        else:
            path = Path("/dev/zero" if kind == "device" else f"/dev/fd/{reading}")
        for read in (frames, lambda film: iter(picture_times(film)), lambda film: iter([describe(film, "")])):
            with pytest.raises(NotAFilm, match="a pipe, a socket or a device"):
                next(iter(read(path)))
        os.close(reading)
        os.close(writing)


# --- encryption and damage -------------------------------------------------------------------------------------------

CENC = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb")
KEY_ID = ("-encryption_kid", "a7e61c373e219033c21091fa607bf3b8")


@pytest.mark.parametrize("fragments", [(), ("-movflags", "+frag_keyframe+empty_moov")])
def test_an_encrypted_film(tmp_path: Path, fragments: tuple[str, ...]) -> None:
    source = ("-f", "lavfi", "-i", "testsrc2=s=320x180:r=24:d=2")
    ffmpeg(*source, *X264, *CENC, *KEY_ID, *fragments, path := tmp_path / "a.mp4")
    for read in (frames, lambda film: iter(picture_times(film)), lambda film: iter([describe(film, "")])):
        with pytest.raises(FilmEncrypted, match="encrypted"):
            next(iter(read(path)))


@pytest.fixture(scope="module")
def broadcast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = ("-f", "lavfi", "-i", "testsrc2=s=320x180:r=24:d=4", "-f", "lavfi", "-i", "sine=440:d=4")
    ids = ("-streamid", "0:256", "-streamid", "1:257")
    ffmpeg(*source, *X264, "-g", 12, "-c:a", "mp2", *ids, path := tmp_path_factory.mktemp("broadcast") / "a.ts")
    return path


def scrambled(broadcast: Path, path: Path, track: int, *, first: float, last: float, spacing: int = 188) -> Path:
    """Copy a transport stream with packets of a track scrambled, from one share of the file to another."""
    rng = random.Random(0)
    data = broadcast.read_bytes()
    packets = [bytearray(data[at : at + 188]) for at in range(0, len(data), 188)]
    for packet in packets[round(first * len(packets)) : round(last * len(packets))]:
        if (packet[1] & 0x1F) << 8 | packet[2] == track and packet[3] & 0x10:
            payload = 5 + packet[4] if packet[3] & 0x20 else 4
            packet[3] |= 0x80
            packet[payload:] = rng.randbytes(188 - payload)
    before, after = (bytes(4), b"") if spacing == 192 else (b"", bytes(spacing - 188))
    path.write_bytes(b"".join(before + packet + after for packet in packets))
    return path


@pytest.mark.parametrize(("first", "last"), [(0.0, 1.0), (0.5, 1.0), (0.0, 0.5), (0.3, 0.6)])
@pytest.mark.parametrize("spacing", [188, 192, 204])
def test_a_scrambled_broadcast(broadcast: Path, tmp_path: Path, first: float, last: float, spacing: int) -> None:
    path = scrambled(broadcast, tmp_path / "a.ts", 256, first=first, last=last, spacing=spacing)
    for read in (frames, lambda film: iter(picture_times(film)), lambda film: iter([describe(film, "")])):
        with pytest.raises(FilmEncrypted, match="encrypted"):
            next(iter(read(path)))


def test_a_long_scrambled_broadcast(broadcast: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is judged by samples."""
    monkeypatch.setattr(scrambling, "SAMPLE_BYTES", 8000)
    monkeypatch.setattr(scrambling, "SAMPLES", 30)
    path = scrambled(broadcast, tmp_path / "a.ts", 256, first=0.5, last=1)
    assert path.stat().st_size > 30 * 8000
    assert scrambling.scrambled_share(path, 256) == pytest.approx(0.5, abs=0.2)
    assert scrambling.scrambled_share(broadcast, 256) == 0


def test_a_broadcast_of_which_little_is_scrambled(
    broadcast: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = scrambled(broadcast, tmp_path / "a.ts", 256, first=0.5, last=0.55)
    assert len(list(frames(path))) > 0.8 * 96
    assert "pictures are scrambled" in caplog.text


def test_a_descrambled_broadcast(broadcast: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its packets are still marked as scrambled."""
    data = bytearray(broadcast.read_bytes())
    for at in range(0, len(data), 188):
        data[at + 3] |= 0x80 * ((data[at + 1] & 0x1F) << 8 | data[at + 2] == 256)
    (path := tmp_path / "a.ts").write_bytes(data)
    assert len(list(frames(path))) == 96
    assert not caplog.text


def test_scrambled_sound(broadcast: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = scrambled(broadcast, tmp_path / "a.ts", 257, first=0.5, last=1)
    (sound,) = sounds_of(path, [Shot(0, 4)])
    assert sound is not None
    assert len(sound) / SOUND_RATE == pytest.approx(2, abs=0.5)
    assert "sound is scrambled" in caplog.text
    assert len(list(frames(path))) == 96


def damaged(path: Path, share: float) -> Path:
    """Overwrite this share of the pictures with noise; each is a key frame, so that no other one suffers."""
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x180:r=24:d=8", *X264, "-g", 1, path)
    with av.open(str(path)) as film:
        pictures = [(packet.pos, packet.size) for packet in film.demux(video=0) if packet.pos]
    data = bytearray(path.read_bytes())
    rng = random.Random(0)
    for at, size in rng.sample(pictures, round(share * len(pictures))):
        data[at + 40 : at + size] = rng.randbytes(size - 40)
    path.write_bytes(data)
    return path


def test_a_film_of_which_little_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = damaged(tmp_path / "a.mp4", 0.05)
    with caplog.at_level(logging.WARNING):
        assert len(list(frames(path))) > 0.9 * 192
    assert "damaged pictures" in caplog.text


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_a_film_of_which_much_is_damaged(tmp_path: Path, name: str) -> None:
    path = damaged(tmp_path / "a.mp4", 0.4)
    if name == "a.ts":
        ffmpeg("-i", path, "-c", "copy", "-f", "mpegts", path := tmp_path / name)
    with pytest.raises(FilmDamaged, match=r"(3\d|4\d|5\d)% of the pictures read .* at most 10% of a film may be"):
        list(frames(path))


@pytest.mark.parametrize("damaged", [0.1, 0.5, 1])
@pytest.mark.parametrize("spread", [1, 77])
def test_a_damaged_time_of_sound(tmp_path: Path, damaged: float, spread: int) -> None:
    """The upper byte of a sound tag's time is noise: early, in the middle, at the end of the film."""
    source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=24:d=4", "-f", "lavfi", "-i", "sine=440:d=4")
    ffmpeg(*source, "-c:v", "flv", "-c:a", "mp3", "-ar", 44_100, path := tmp_path / "a.flv")
    data = bytearray(path.read_bytes())
    tags, at = [], 13
    while at < len(data):
        tags += [at] * (data[at] == 8)
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    data[tags[round(damaged * (len(tags) - 1))] + 7] = spread
    path.write_bytes(data)
    assert list(frames(path))[-1].end == pytest.approx(4, abs=0.2)
    assert picture_times(path)[1] == pytest.approx(4, abs=0.2)
    (sound,) = sounds_of(path, [Shot(0, 4)])
    assert sound is not None
    assert len(sound) / SOUND_RATE == pytest.approx(4, abs=0.1)
    assert np.mean(np.abs(sound[-SOUND_RATE // 2 :]) > 0.01) > 0.8


@pytest.mark.parametrize("pause", [12, 400])
def test_sound_after_a_long_pause(tmp_path: Path, pause: int) -> None:
    """All of it is heard, and the last picture stays for it."""
    source = (
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=64x48:r=24:d=1",
        "-itsoffset",
        pause,
        "-f",
        "lavfi",
        "-i",
        "sine=440:d=2",
    )
    sound_source = ("-f", "lavfi", "-i", "sine=440:d=2")
    ffmpeg(*source, *sound_source, *X264, "-c:a", "pcm_s16le", path := tmp_path / "a.mkv")
    assert list(frames(path))[-1].end == pytest.approx(pause + 2, abs=0.1)
    _, sound = sounds_of(path, [Shot(0, pause - 1), Shot(pause - 1, pause + 2)])
    assert sound is not None
    assert np.count_nonzero(np.abs(sound) > 0.001) / SOUND_RATE == pytest.approx(2, abs=0.05)


# --- one picture -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_last_picture_lasts_as_long_as_the_sound(tmp_path: Path, name: str) -> None:
    path = write_film(tmp_path / name, scenes(1), sound=tone(440, 20.0))
    (frame,) = frames(path)
    starts, end = picture_times(path)
    assert (starts, end) == ([frame.start], frame.end)
    assert frame.end == pytest.approx(20, abs=0.1)
    assert describe(path, "").duration == pytest.approx(20, abs=0.1)
    (sound,) = sounds_of(path, [Shot(frame.start, frame.end)])
    assert sound is not None
    assert len(sound) / SOUND_RATE == pytest.approx(20, abs=0.1)


def test_sound_a_little_longer_than_the_picture_adds_nothing(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", scenes(48), sound=tone(440, 2.5))
    assert list(frames(path))[-1].end == pytest.approx(48 / RATE)
