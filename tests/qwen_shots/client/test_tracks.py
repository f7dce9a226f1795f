"""Which picture and which sound of a film with many tracks count: each track is another tone."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from av import AudioStream
from av.stream import Disposition

from qwen_shots.client.errors import NotAFilm
from qwen_shots.client.film import frames
from qwen_shots.client.shots import Shot
from qwen_shots.client.soundtrack import RATE, sounds_of
from qwen_shots.client.tracks import _is_beside
from tests.qwen_shots.client.boxes import change, channels

PICTURE = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
BROADCAST = (*PICTURE, "-c:a", "mp2", "-f", "mpegts")
SECONDS = 2


def film(path: Path, inputs: str, *arguments: object) -> Path:
    """Write a film.

    Args:
        path: where to.
        inputs: `v` for a picture, a number for a tone of so many Hz; each becomes a track, in this order.
        arguments: ffmpeg's.
    """
    kinds = {"v": f"testsrc2=s=64x48:r=24:d={SECONDS}"}
    sources = [kinds.get(word, f"sine={word}:r=48000:d={SECONDS}") for word in inputs.split()]
    given = [part for source in sources for part in ("-f", "lavfi", "-i", source)]
    maps = [part for number in range(len(sources)) for part in ("-map", str(number))]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *given, *maps, *map(str, arguments), str(path)], check=True)
    return path


def tones(path: Path) -> list[int]:
    """The tones that are heard, in Hz."""
    (sound,) = sounds_of(path, [Shot(0, SECONDS)])
    if sound is None:
        return []
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    loud = np.flatnonzero(spectrum > 0.2 * spectrum.max()) * RATE / len(sound)
    return sorted({round(hertz / 100) * 100 for hertz in loud})


PROGRAMMES = {
    "the other programme's sound comes first": ("800 v 400 v", ("st=0:st=3", "st=1:st=2"), [400]),
    "a radio programme comes first": ("800 v 400", ("st=0", "st=1:st=2"), [400]),
    "the other programme's sound is the only one": ("v 800", ("st=0", "st=1"), []),
    "both are there": ("v 400 v 800", ("st=0:st=1", "st=2:st=3"), [400]),
}


@pytest.mark.parametrize("name", PROGRAMMES)
def test_sound_of_the_pictures_programme(tmp_path: Path, name: str) -> None:
    inputs, programmes, expected = PROGRAMMES[name]
    given = [
        part for number, streams in enumerate(programmes, 1) for part in ("-program", f"program_num={number}:{streams}")
    ]
    if name == "the other programme's sound comes first":
        # FFmpeg sees the programmes in the multiplex's order; the picture of the first one counts.
        given = ["-program", "program_num=1:st=1:st=2", "-program", "program_num=2:st=3:st=0"]
    assert tones(film(tmp_path / "a.ts", inputs, *BROADCAST, *given)) == expected


DISCRETE = {
    "QuickTime": ("a.mov", (*PICTURE, "-c:a", "pcm_s16le"), [400, 800, 1200]),
    "QuickTime, compressed": ("a.mov", (*PICTURE, "-c:a", "aac"), [400, 800, 1200]),
    "MXF": ("a.mxf", ("-c:v", "mpeg2video", "-c:a", "pcm_s16le"), [400, 800, 1200]),
    "Matroska: alternatives": ("a.mkv", (*PICTURE, "-c:a", "pcm_s16le"), [400]),
    "languages": (
        "a.mov",
        (*PICTURE, "-c:a", "aac", "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu",
         "-metadata:s:a:2", "language=fra"),
        [400],
    ),
    "two of a language": (
        "a.mov",
        (*PICTURE, "-c:a", "aac", "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=eng",
         "-metadata:s:a:2", "language=fra"),
        [400, 800],
    ),
    "a commentary": (
        "a.mov",
        (*PICTURE, "-c:a", "aac", "-metadata:s:a:1", "handler_name=Director's Commentary"),
        [400, 1200],
    ),
    "stereo": ("a.mov", (*PICTURE, "-c:a", "aac", "-ac", 2), [400]),
}  # fmt: skip


@pytest.mark.parametrize("name", DISCRETE)
def test_mono_tracks_that_belong_together(tmp_path: Path, name: str) -> None:
    file, arguments, expected = DISCRETE[name]
    assert tones(film(tmp_path / file, "v 400 800 1200", *arguments)) == expected


# As the tracks of films and discs are called.
BESIDE = (
    "Director's Commentary", "Commentaire audio", "Audiokommentar", "Audiocommentaar", "Regissörens kommentarspår",
    "Komentarz reżysera", "Komentář režiséra", "Commento del regista", "Comentario del director",
    "Comentário do diretor",
    "Kommenttiraita", "Rendezői kommentár", "Yönetmen yorumu", "Комментарий режиссёра", "Коментар",
    "Σχόλια σκηνοθέτη", "監督コメンタリー", "ｺﾒﾝﾀﾘｰ", "副音声", "导演评论音轨", "導演評論", "감독 코멘터리",
    "Audio Description", "Descriptive Audio", "English (AD)", "Audiodeskription", "Hörfilm", "Ho\u0308rfilm",
    "Audiodescription", "Audiobeschrijving", "Syntolkning", "Synstolking", "Synstolkning", "Kuvailutulkkaus",
    "Audiodeskrypcja",
    "Audiopopis", "Audiodescrizione", "Audiodescripción", "Audiodescrição", "Sesli betimleme", "Тифлокомментарий",
    "Аудиодескрипция", "Ακουστική περιγραφή", "音声解説", "音声ガイド", "口述影像", "화면해설", "Visually impaired",
)  # fmt: skip
FILMS_OWN = (
    "Film", "Original", "Stereo", "Surround 5.1", "SoundHandler", "Deutsch", "Français", "Русский", "Дубляж",
    "日本語", "国语", "한국어", "Dolby Digital", "Ad Astra", "Moment", "Document", "",
)  # fmt: skip


def test_titles_of_commentaries_and_descriptions() -> None:
    def is_beside(title: str) -> bool:
        return _is_beside(cast("AudioStream", SimpleNamespace(metadata={"title": title}, disposition=Disposition(0))))

    assert [title for title in BESIDE if not is_beside(title)] == []
    assert [title for title in FILMS_OWN if is_beside(title)] == []


@pytest.mark.parametrize(("name", "key"), [("a.mkv", "title"), ("a.mov", "handler_name")])
@pytest.mark.parametrize("title", ["Kommentar", "Комментарий", "オーディオコメンタリー"])
def test_a_commentary_in_any_language_is_not_heard(tmp_path: Path, name: str, key: str, title: str) -> None:
    arguments = (*PICTURE, "-c:a", "pcm_s16le", "-metadata:s:a:0", f"{key}={title}", "-metadata:s:a:1", f"{key}=Film")
    assert tones(film(tmp_path / name, "v 400 800", *arguments)) == [800]


def test_discrete_tracks_count_as_channels_do(tmp_path: Path) -> None:
    """As loud as the mean of a track's channels, from the first sample to the last, whatever their lengths."""
    discrete = film(tmp_path / "a.mov", "v 400 800", *PICTURE, "-c:a", "pcm_s16le")
    join = ("-filter_complex", "[1][2]amerge=inputs=2[a]", "-map", "0:v", "-map", "[a]")
    tracks = ("-f", "lavfi", "-i", f"testsrc2=s=64x48:r=24:d={SECONDS}")
    sines = [part for hertz in (400, 800) for part in ("-f", "lavfi", "-i", f"sine={hertz}:r=48000:d={SECONDS}")]
    stereo = tmp_path / "b.mov"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *tracks, *sines, *join, *PICTURE, "-c:a", "pcm_s16le", str(stereo)], check=True
    )
    (one,), (other,) = sounds_of(discrete, [Shot(0, 9)]), sounds_of(stereo, [Shot(0, 9)])
    assert one is not None
    assert other is not None
    assert len(one) == len(other)
    assert np.abs(one - other).max() < 1e-4


def renamed(path: Path, *codes: bytes) -> Path:
    """Give the first codec of these codes one that no decoder knows."""
    data = path.read_bytes()
    for code in codes:
        at = data.index(code, data.index(b"moov"))
        data = data[:at] + b"qzv9" + data[at + 4 :]
    path.write_bytes(data)
    return path


def test_a_track_of_an_unknown_codec_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = renamed(film(tmp_path / "a.mov", "v 400 800", *PICTURE, "-c:a", "pcm_s16le"), b"sowt")
    with caplog.at_level(logging.WARNING):
        assert tones(path) == [800]
        assert "a sound track can't be decoded (qzv9)" in caplog.text
        renamed(path, b"sowt")
        assert tones(path) == []
    assert "the sound can't be decoded (qzv9)" in caplog.text


def test_a_picture_of_an_unknown_codec_is_passed_over(tmp_path: Path) -> None:
    path = renamed(film(tmp_path / "a.mov", "v v 400", *PICTURE, "-c:a", "pcm_s16le"), b"avc1")
    assert len(list(frames(path))) == 24 * SECONDS
    renamed(path, b"avc1")
    with pytest.raises(NotAFilm, match=r"codec that can't be decoded \(qzv9\)"):
        next(frames(path))


CHANNELS = {
    "film order": ("5.1", 6, channels(123 << 16 | 6)),
    "unused": ("4.0", 4, channels(0, [0] * 4)),
    "two unused": ("4.0", 4, channels(0, [1, 2, 0, 0])),
    "right before left": ("stereo", 2, channels(0, [2, 1])),
    "discrete": ("4.0", 4, channels(147 << 16 | 4)),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_channels_in_any_order(tmp_path: Path, name: str) -> None:
    """Their mean is heard. The versions of PyAV that are excluded end the process here."""
    layout, count, box = CHANNELS[name]
    silent = "|0" * (count - 2)
    source = f"aevalsrc=0.2*sin(400*2*PI*t)|0.2*sin(800*2*PI*t){silent}:s=8000:d={SECONDS}:c={layout}"
    path = tmp_path / "a.mov"
    inputs = ("-f", "lavfi", "-i", f"testsrc2=s=64x48:r=24:d={SECONDS}", "-f", "lavfi", "-i", source)
    subprocess.run(["ffmpeg", "-v", "error", "-y", *inputs, *PICTURE, "-c:a", "pcm_s16le", str(path)], check=True)
    path.write_bytes(change(path.read_bytes(), b"chan", lambda _: box))
    assert tones(path) == [400, 800]
    (sound,) = sounds_of(path, [Shot(0.2, SECONDS - 0.2)])
    assert sound is not None
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.2 / count, rel=0.01)


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "flac", "mp2"]
)
def test_samples_of_any_kind(tmp_path: Path, codec: str) -> None:
    path = film(tmp_path / "a.mkv", "v 400", *PICTURE, "-c:a", codec, "-ac", 2)
    (sound,) = sounds_of(path, [Shot(0.2, SECONDS - 0.2)])
    assert sound is not None
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(1 / 16, rel=0.02)  # FFmpeg's sine of 1/8, from mono to stereo
    assert abs(sound.mean()) < 1 / 200  # 8 bits are cut off, half a step below the sine
