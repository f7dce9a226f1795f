"""The sound of shots: known tones, librosa itself, and where in the film each sample belongs."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import av
import librosa
import numpy as np
import pytest
from numpy.typing import NDArray

from qwen_shots.audio import classify
from qwen_shots.client.shots import Shot
from qwen_shots.client.sound import features, features_of
from qwen_shots.client.soundtrack import RATE, _mixed, sounds_of
from qwen_shots.schemas import AudioFeatures
from tests.helpers import ROOT
from tests.qwen_shots.client.clips import SOUND_RATE, scenes, tone, write_film

SINTEL = ROOT / "samples/sintel-trailer.mp4"


def sine(hertz: float, seconds: float, level: float = 0.3) -> NDArray[np.float32]:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def pitch(sound: NDArray[np.float32]) -> float:
    """The strongest frequency in Hz."""
    return float(np.abs(np.fft.rfft(sound * np.hanning(len(sound)))).argmax() * RATE / len(sound))


def full(found: AudioFeatures) -> dict[str, object]:
    return AudioFeatures.model_validate_json(found.model_dump_json()).model_dump()


def test_a_real_shot_is_what_librosa_says_directly() -> None:
    (sound,) = sounds_of(SINTEL, [Shot(14.0, 17.58)])
    assert sound is not None
    found = features(sound)
    mfcc = librosa.feature.mfcc(y=sound, sr=RATE, n_mfcc=13)
    centroid = librosa.feature.spectral_centroid(y=sound, sr=RATE)
    rms = librosa.feature.rms(y=sound)
    direct = {
        "mfcc_mean": mfcc.mean(axis=1),
        "mfcc_std": mfcc.std(axis=1),
        "spectral_centroid_mean": centroid.mean(),
        "spectral_centroid_std": centroid.std(),
        "spectral_rolloff_mean": librosa.feature.spectral_rolloff(y=sound, sr=RATE).mean(),
        "spectral_bandwidth_mean": librosa.feature.spectral_bandwidth(y=sound, sr=RATE).mean(),
        "zero_crossing_rate_mean": librosa.feature.zero_crossing_rate(sound).mean(),
        "rms_energy_mean": rms.mean(),
        "rms_energy_std": rms.std(),
        "chroma_mean": librosa.feature.chroma_stft(y=sound, sr=RATE).mean(axis=1),
        "tempo": librosa.feature.tempo(y=sound, sr=RATE)[0],
        "duration": 3.58,
    }
    assert set(direct) == set(AudioFeatures.model_fields)
    for name, value in full(found).items():
        assert value == pytest.approx(direct[name], rel=1e-3, abs=1e-4), name


def test_an_a_of_440_hertz() -> None:
    found = features(sine(440, 1.5))
    assert found.spectral_centroid_mean == pytest.approx(440, rel=0.1)
    assert found.zero_crossing_rate_mean == pytest.approx(2 * 440 / RATE, rel=0.1)
    assert found.rms_energy_mean == pytest.approx(0.3 / np.sqrt(2), rel=0.05)
    assert found.chroma_mean is not None
    assert int(np.argmax(found.chroma_mean)) == 9  # C is 0
    assert found.tempo is None
    assert found.duration == pytest.approx(1.5)


def test_clicks_at_120_a_minute() -> None:
    clicks = librosa.clicks(times=np.arange(0, 8, 0.5), sr=RATE, length=8 * RATE).astype(np.float32)
    assert features(clicks).tempo == pytest.approx(120, rel=0.05)


def test_silence_has_no_tempo() -> None:
    found = features(np.zeros(3 * RATE, np.float32))
    assert (found.tempo, found.rms_energy_mean, found.chroma_mean) == (None, 0, [0.0] * 12)
    judged = classify(found)
    assert judged is not None
    assert judged.audio_class == "silent"


@pytest.mark.parametrize("samples", [1, 2, 500, 919, 2047, 2048])
def test_sound_shorter_than_a_window(samples: int) -> None:
    found = features(sine(440, samples / RATE)[:samples])
    assert found.duration == pytest.approx(samples / RATE)
    assert set(full(found)) == set(AudioFeatures.model_fields)  # the wire takes no NaN


def test_square_waves_at_full_scale_stay_in_range() -> None:
    loud = np.sign(sine(100, 1.0)).astype(np.float32)
    found = features(loud)
    assert found.rms_energy_mean is not None
    assert found.rms_energy_mean == pytest.approx(1, abs=0.05)


def test_each_shot_hears_its_own(tmp_path: Path) -> None:
    melody = np.concatenate([tone(300, 1), tone(600, 1), tone(1200, 1)])
    path = write_film(tmp_path / "a.mp4", scenes(72), sound=melody)
    heard = list(sounds_of(path, [Shot(0, 1), Shot(1, 2), Shot(2, 3)]))
    assert [len(sound) / RATE for sound in heard if sound is not None] == pytest.approx([1, 1, 1], abs=0.01)
    assert [pitch(sound[1000:-1000]) for sound in heard if sound is not None] == pytest.approx([300, 600, 1200], abs=3)


def test_shots_need_not_touch(tmp_path: Path) -> None:
    melody = np.concatenate([tone(300, 1), tone(600, 1), tone(1200, 1)])
    path = write_film(tmp_path / "a.mkv", scenes(72), sound=melody)
    (heard,) = sounds_of(path, [Shot(2.2, 2.8)])
    assert heard is not None
    assert len(heard) == round(2.8 * RATE) - round(2.2 * RATE)
    assert pitch(heard) == pytest.approx(1200, abs=3)


def test_a_film_without_sound(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", scenes(48))
    assert list(features_of(path, [Shot(0, 1), Shot(1, 2)])) == [None, None]


def test_sound_that_ends_early_and_sound_that_starts_late(tmp_path: Path) -> None:
    early = write_film(tmp_path / "early.mkv", scenes(72), sound=tone(500, 1.5))
    whole, half, none = features_of(early, [Shot(0, 1), Shot(1, 2), Shot(2, 3)])
    assert whole is not None
    assert half is not None
    assert [whole.duration, half.duration] == pytest.approx([1, 0.5], abs=0.01)
    assert none is None
    late = write_film(tmp_path / "late.mkv", scenes(72), sound=tone(500, 1.5), sound_starts=1.5)
    (heard,) = sounds_of(late, [Shot(0, 3)])
    assert heard is not None
    assert np.abs(heard[: int(1.49 * RATE)]).max() == 0
    assert np.sqrt(np.mean(heard[int(1.51 * RATE) :] ** 2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.02)


def test_of_a_very_long_take_only_the_beginning_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen_shots.client.soundtrack.MAX_SECONDS", 2.0)
    path = write_film(tmp_path / "a.mkv", scenes(96), sound=np.concatenate([tone(300, 3), tone(900, 1)]))
    first, second = sounds_of(path, [Shot(0, 3), Shot(3, 4)])
    assert first is not None
    assert second is not None
    assert len(first) == 2 * RATE
    assert pitch(second) == pytest.approx(900, abs=3)


def decoded(samples: NDArray[np.float32], starts: float, layout: str = "mono") -> av.AudioFrame:
    rows = samples[None].repeat(2 if layout == "stereo" else 1, axis=0)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(rows), "fltp", layout)
    frame.sample_rate, frame.time_base, frame.pts = SOUND_RATE, Fraction(1, SOUND_RATE), round(starts * SOUND_RATE)
    return frame


def laid(pieces: list[av.AudioFrame]) -> NDArray[np.float32]:
    return np.concatenate(list(_mixed([(0, piece) for piece in pieces], 1, Fraction(0))))


def test_gaps_overlaps_and_what_lies_before_the_picture() -> None:
    pieces = [
        decoded(tone(500, 1), -0.5),  # half of it before the first picture
        decoded(tone(500, 0.5), 1.5),  # a second's gap
        decoded(tone(500, 1), 1.7),  # repeats 0.3 s
        decoded(tone(500, 0.3), 2.7, "stereo"),  # another layout
    ]
    sound = laid(pieces)
    assert len(sound) / RATE == pytest.approx(3.0, abs=0.01)
    for first, last, level in ((0.02, 0.48, 0.212), (0.52, 1.48, 0.0), (1.52, 2.68, 0.212), (2.72, 2.98, 0.212)):
        part = sound[int(first * RATE) : int(last * RATE)]
        assert np.sqrt(np.mean(part**2)) == pytest.approx(level, abs=0.01), (first, last)


def test_samples_that_are_no_numbers_are_silence() -> None:
    """Only floating point sound can hold them, and no measurement may."""
    broken = tone(500, 1)
    broken[10_000:10_010], broken[20_000] = np.nan, np.inf
    heard = laid([decoded(broken, 0.0)])
    assert np.isfinite(heard).all()
    assert features(heard).rms_energy_mean == pytest.approx(0.212, abs=0.01)


def test_damaged_sound_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.5, 0.5, 3 * SOUND_RATE).astype(np.float32)
    path = write_film(tmp_path / "a.mp4", scenes(72), sound=noise)
    with av.open(str(path)) as film:
        packets = [(packet.pos, packet.size) for packet in film.demux(film.streams.audio[0]) if packet.pos]
    data = bytearray(path.read_bytes())
    for at, size in packets[60:80]:
        data[at : at + size] = rng.bytes(size)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        (heard,) = sounds_of(path, [Shot(0, 3)])
    assert "damaged" in caplog.text
    assert heard is not None
    assert len(heard) / RATE == pytest.approx(3, abs=0.05)
