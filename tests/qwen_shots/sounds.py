"""Sounds whose class is known, made from a seed, and their features as the wire names them.

Everything is mono float32 at 22,050 Hz, a few seconds long.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from typing import TYPE_CHECKING

import librosa
import numpy as np
import soundfile
from numpy.typing import NDArray

from qwen_shots.schemas import AudioFeatures

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE = 22_050
SECONDS = 2.5
HOP = 512

Sound = NDArray[np.float32]

SENTENCES = (
    "Where were you last night? We waited for hours, and nobody came to the door.",
    "This blade has a dark past. It has shed much innocent blood.",
    "Ladies and gentlemen, please take your seats, the show is about to begin.",
    "No. I never said that. You have to believe me, there was somebody else in the house.",
)
VOICES = ("en-us", "en-gb+f3", "en-us+m7", "de", "fr+f2")


def at_level(sound: Sound, dbfs: float) -> Sound:
    """Bring a sound to an RMS in dB of full scale; peaks are clipped as a recording would."""
    rms = float(np.sqrt(np.mean(sound.astype(np.float64) ** 2)))
    return np.asarray(np.clip(sound * (10 ** (dbfs / 20) / rms), -1, 1), dtype=np.float32)


def features(sound: Sound) -> AudioFeatures:
    """librosa's features with its defaults (frames of 2,048 samples, hops of 512)."""
    spectrum = np.abs(librosa.stft(sound))
    mfcc = librosa.feature.mfcc(y=sound, sr=RATE, n_mfcc=13)
    centroid = librosa.feature.spectral_centroid(S=spectrum, sr=RATE)
    rms = librosa.feature.rms(y=sound)
    return AudioFeatures(
        mfcc_mean=mfcc.mean(axis=1).tolist(),
        mfcc_std=mfcc.std(axis=1).tolist(),
        spectral_centroid_mean=float(centroid.mean()),
        spectral_centroid_std=float(centroid.std()),
        spectral_rolloff_mean=float(librosa.feature.spectral_rolloff(S=spectrum, sr=RATE).mean()),
        spectral_bandwidth_mean=float(librosa.feature.spectral_bandwidth(S=spectrum, sr=RATE).mean()),
        zero_crossing_rate_mean=float(librosa.feature.zero_crossing_rate(sound).mean()),
        rms_energy_mean=float(rms.mean()),
        rms_energy_std=float(rms.std()),
        # A fixed tuning: estimating it costs more than all the rest together.
        chroma_mean=librosa.feature.chroma_stft(S=spectrum**2, sr=RATE, tuning=0.0).mean(axis=1).tolist(),
        tempo=None,
        duration=len(sound) / RATE,
    )


def can_speak() -> bool:
    return shutil.which("espeak-ng") is not None


def speech(level: float) -> Iterator[Sound]:
    """Sentences by several voices, speeds and pitches."""
    for number, voice in enumerate(VOICES):
        for turn, sentence in enumerate(SENTENCES):
            speed, pitch = (130, 160, 190, 220)[(number + turn) % 4], (20, 45, 70)[turn % 3]
            yield at_level(_spoken(sentence, voice, speed, pitch), level)


def _spoken(sentence: str, voice: str, speed: int, pitch: int) -> Sound:
    command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(speed), "-p", str(pitch), sentence]
    wave = subprocess.run(command, check=True, capture_output=True).stdout
    # espeak writes to a pipe with a length of its own making in the header; soundfile reads to the end all the same.
    sound, rate = soundfile.read(io.BytesIO(wave), dtype="float32")
    assert rate == RATE
    return np.asarray(sound[: int(SECONDS * RATE)], dtype=np.float32)


def music(level: float, seed: int = 0) -> Iterator[Sound]:
    """Melodies and chords with a beat, at several tempi and with several timbres."""
    rng = np.random.default_rng(seed)
    for tempo in (70, 100, 130, 160):
        for harmonics in (1, 4, 8):
            for decay in (0.5, 2.0):
                yield at_level(_played(rng, tempo, harmonics, decay), level)


def _played(rng: np.random.Generator, tempo: int, harmonics: int, decay: float) -> Sound:
    """Chords on the beat, a melody on half beats, over a held bass; `decay` in 1/s."""
    beat = 60 / tempo
    sound = _note(110 * 2 ** (rng.integers(12) / 12), SECONDS, harmonics, 0.1) * 0.4
    scale = np.array([0, 2, 4, 5, 7, 9, 11])
    for start in np.arange(0, SECONDS, beat / 2):
        root = 220 * 2 ** (scale[rng.integers(7)] / 12)
        on_beat = round(start / beat * 2) % 2 == 0
        for interval in (0, 4, 7) if on_beat else (12,):
            _add(sound, _note(root * 2 ** (interval / 12), beat * 1.5, harmonics, decay), start)
    return sound


def _note(hertz: float, seconds: float, harmonics: int, decay: float) -> Sound:
    time = np.arange(int(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, harmonics + 1))
    attack = np.minimum(time / 0.01, 1)
    return np.asarray(tone * attack * np.exp(-decay * time), dtype=np.float32)


def _add(sound: Sound, note: Sound, start: float) -> None:
    first = int(start * RATE)
    part = note[: len(sound) - first]
    sound[first : first + len(part)] += part


def ambience(level: float, seed: int = 0) -> Iterator[Sound]:
    """Noise of several colours, steady or swelling as wind does, and mains hum over a noise floor."""
    rng = np.random.default_rng(seed)
    for slope in (0.0, -0.5, -1.0):
        yield at_level(noise(rng, slope), level)
        for hertz in (0.2, 0.5, 0.9):
            yield at_level(noise(rng, slope) * _swell(rng, hertz), level)
    for low, high in ((50, 400), (200, 1000), (500, 3000), (2000, 8000)):
        yield at_level(noise(rng, 0.0, low, high), level)
        yield at_level(noise(rng, -0.5, low, high) * _swell(rng, 0.4), level)
    for mains in (50, 60, 100, 120):
        yield at_level(_note(mains, SECONDS, 6, 0) + at_level(noise(rng, -0.5), -20), level)


def noise(rng: np.random.Generator, slope: float, low: float = 20, high: float = RATE / 2) -> Sound:
    """Noise whose amplitude goes as frequency to `slope` (0 white, -0.5 pink, -1 brown) between two edges in Hz."""
    count = int(SECONDS * RATE)
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    shape = np.where((hertz >= low) & (hertz <= high), np.maximum(hertz, 1.0) ** slope, 0)
    phases = rng.normal(size=len(hertz)) + 1j * rng.normal(size=len(hertz))
    return np.asarray(np.fft.irfft(shape * phases, count), dtype=np.float32)


def _swell(rng: np.random.Generator, hertz: float) -> Sound:
    time = np.arange(int(SECONDS * RATE)) / RATE
    return np.asarray(1 + 0.5 * np.sin(2 * np.pi * (hertz * time + rng.random())), dtype=np.float32)


def silence(seed: int = 0) -> Iterator[Sound]:
    """Digital zero, and faint noise as a muted track has it."""
    rng = np.random.default_rng(seed)
    yield np.zeros(int(SECONDS * RATE), dtype=np.float32)
    for level in (-61.0, -66.0, -72.0, -80.0, -90.0):
        for slope in (0.0, -0.5, -1.0):
            yield at_level(noise(rng, slope), level)
