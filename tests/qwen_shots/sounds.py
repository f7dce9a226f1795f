"""Sounds whose class is known, each made from a seed, and their features as the wire names them.

Everything is mono float32 at 22,050 Hz, half a second to six seconds long.
"""

from __future__ import annotations

import io
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import librosa
import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from qwen_shots.schemas import AudioFeatures

if TYPE_CHECKING:
    from collections.abc import Callable

RATE = 22_050
LENGTHS = (0.5, 0.8, 1.2, 2.0, 3.5, 6.0)

Sound = NDArray[np.float32]

SENTENCES = (
    "Where were you last night? We waited for hours, and nobody came to the door.",
    "This blade has a dark past. It has shed much innocent blood.",
    "Ladies and gentlemen, please take your seats, the show is about to begin.",
    "No. I never said that. You have to believe me, there was somebody else in the house.",
    "Six o'clock, at the old station. Bring the papers, and tell no one.",
    "I can't hear you! The wind is too strong, come back to the boat before it gets dark!",
)
VOICES = ("en-us", "en-gb+f3", "en-us+m7", "de", "fr+f2", "es", "it+f4", "en-gb+m3", "nl+f1", "pl+m5")


def at_level(sound: Sound, dbfs: float) -> Sound:
    """Bring a sound to an RMS in dB of full scale; peaks are clipped as a recording would."""
    rms = float(np.sqrt(np.mean(sound.astype(np.float64) ** 2)))
    return np.asarray(np.clip(sound * (10 ** (dbfs / 20) / max(rms, 1e-12)), -1, 1), dtype=np.float32)


def features(sound: Sound) -> AudioFeatures:
    """librosa's features with its defaults (frames of 2,048 samples, hops of 512)."""
    spectrum = np.abs(librosa.stft(sound))
    mel = librosa.feature.melspectrogram(S=spectrum**2, sr=RATE)
    mfcc = librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=13)
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


# --- speech ----------------------------------------------------------------------------------------------------------


def speech(seed: int, seconds: float) -> Sound:
    """A stretch of talk by one of several voices, at any speed and pitch, in a room with a faint noise floor."""
    rng = np.random.default_rng(seed)
    voice, sentence = VOICES[seed % len(VOICES)], SENTENCES[seed // len(VOICES) % len(SENTENCES)]
    talk = _spoken(sentence, voice, int(rng.integers(130, 221)), int(rng.integers(20, 75)))
    talk = np.tile(talk, 1 + int(seconds * RATE) // len(talk))
    first = _within_talk(rng, talk, int(seconds * RATE))
    part = at_level(talk[first : first + int(seconds * RATE)], -20)
    return part + at_level(noise(rng, seconds, -0.5), -20 - float(rng.uniform(25, 45)))


def _within_talk(rng: np.random.Generator, talk: Sound, count: int) -> int:
    """Where to cut a part that is no mere pause: three quarters of it are talked, if there is such a part."""
    talking = maximum_filter1d(np.abs(talk), 1024) > 0.02 * np.abs(talk).max()
    talked = np.concatenate([[0], np.cumsum(talking)])
    share = (talked[count:] - talked[:-count]) / count
    return int(rng.choice(np.flatnonzero(share >= min(0.75, share.max()))))


@cache
def _spoken(sentence: str, voice: str, speed: int, pitch: int) -> Sound:
    command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(speed), "-p", str(pitch), sentence]
    wave = subprocess.run(command, check=True, capture_output=True).stdout
    # espeak writes to a pipe with a length of its own making in the header; soundfile reads to the end all the same.
    sound, rate = soundfile.read(io.BytesIO(wave), dtype="float32")
    assert rate == RATE
    return np.asarray(sound, dtype=np.float32)


# --- music -----------------------------------------------------------------------------------------------------------


def music(seed: int, seconds: float) -> Sound:
    """Chords on the beat, a melody over them and a held bass, at any tempo; every third piece with drums."""
    rng = np.random.default_rng(seed)
    beat = 60 / float(rng.uniform(60, 170))
    length = seconds + 2 * beat
    harmonics, decay = int(rng.choice([1, 3, 5, 8])), float(rng.uniform(0.3, 3))
    root = 110 * 2 ** (float(rng.integers(12)) / 12)
    sound = _note(root, length, harmonics, 0.1) * 0.4
    for step, start in enumerate(np.arange(0, length, beat / 2)):
        tone = 2 * root * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11]) / 12)
        for interval in (0, 4, 7) if step % 4 == 0 else (12,):
            _add(sound, _note(tone * 2 ** (interval / 12), beat * 2, harmonics, decay), start)
        if seed % 3 == 0:
            _add(sound, _drum(rng, step % 2 == 0), start)
    first = int(rng.uniform(0, 2 * beat) * RATE)
    return sound[first : first + int(seconds * RATE)]


def _note(hertz: float, seconds: float, harmonics: int, decay: float) -> Sound:
    """A tone with overtones; `decay` in 1/s."""
    time = np.arange(int(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, harmonics + 1))
    return np.asarray(tone * np.minimum(time / 0.01, 1) * np.exp(-decay * time), dtype=np.float32)


def _drum(rng: np.random.Generator, low: bool) -> Sound:
    time = np.arange(int(0.15 * RATE)) / RATE
    hit = np.sin(2 * np.pi * 60 * time) if low else 0.4 * rng.normal(size=len(time))
    return np.asarray(hit * np.exp(-25 * time), dtype=np.float32)


def _add(sound: Sound, part: Sound, start: float) -> None:
    first = int(start * RATE)
    part = part[: len(sound) - first]
    sound[first : first + len(part)] += part


# --- ambience --------------------------------------------------------------------------------------------------------


def noise(rng: np.random.Generator, seconds: float, slope: float, low: float = 20, high: float = RATE / 2) -> Sound:
    """Noise whose amplitude goes as frequency to `slope` (0 white, -0.5 pink, -1 brown) between two edges in Hz."""
    count = int(seconds * RATE)
    hertz = np.fft.rfftfreq(count, 1 / RATE)
    shape = np.where((hertz >= low) & (hertz <= high), np.maximum(hertz, 1.0) ** slope, 0)
    phases = rng.normal(size=len(hertz)) + 1j * rng.normal(size=len(hertz))
    return np.asarray(np.fft.irfft(shape * phases, count), dtype=np.float32)


def colour(rng: np.random.Generator, seconds: float) -> Sound:
    return noise(rng, seconds, float(rng.choice([0.0, -0.5, -1.0])))


def wind(rng: np.random.Generator, seconds: float) -> Sound:
    """Low noise that swells within seconds."""
    time = np.arange(int(seconds * RATE)) / RATE
    swell = 1 + 0.5 * np.sin(2 * np.pi * (float(rng.uniform(0.1, 0.7)) * time + rng.random()))
    return np.asarray(noise(rng, seconds, -0.7, 40, float(rng.uniform(400, 2000))) * swell, dtype=np.float32)


def hum(rng: np.random.Generator, seconds: float) -> Sound:
    """Mains or a machine over a noise floor."""
    tone = _note(float(rng.choice([50, 60, 100, 120])), seconds, int(rng.integers(2, 8)), 0)
    return at_level(tone, -20) + at_level(noise(rng, seconds, -0.5), -20 - float(rng.uniform(3, 20)))


def rain(rng: np.random.Generator, seconds: float) -> Sound:
    """Many drops a second over a hiss."""
    drops = np.zeros(int(seconds * RATE), dtype=np.float32)
    at = rng.integers(0, len(drops), int(seconds * rng.uniform(200, 2000)))
    np.add.at(drops, at, rng.exponential(1, len(at)).astype(np.float32))
    ring = np.exp(-np.arange(200) / 20) * np.sin(np.arange(200) * float(rng.uniform(0.6, 1.8)))
    wet = np.convolve(drops, ring, "same").astype(np.float32)
    return at_level(wet, -20) + at_level(noise(rng, seconds, -0.3), -20 - float(rng.uniform(0, 12)))


def room(rng: np.random.Generator, seconds: float) -> Sound:
    """A band of noise: air, traffic behind a window, a ventilator."""
    low = float(np.exp(rng.uniform(np.log(40), np.log(1500))))
    return noise(rng, seconds, -0.3, low, low * float(rng.uniform(3, 10)))


AMBIENCES: tuple[Callable[[np.random.Generator, float], Sound], ...] = (colour, wind, hum, rain, room)


def ambience(seed: int, seconds: float) -> Sound:
    """One of them, over the faint hiss that every microphone has."""
    rng = np.random.default_rng(seed)
    hiss = at_level(noise(rng, seconds, 0.0), -20 - float(rng.uniform(35, 50)))
    return at_level(AMBIENCES[seed % len(AMBIENCES)](rng, seconds), -20) + hiss


def silence(seed: int, seconds: float) -> Sound:
    """Faint noise as a muted track has it; every fifth is digital zero."""
    sound = colour(np.random.default_rng(seed), seconds)
    return sound * 0 if seed % 5 == 0 else sound


def speech_over_music(seed: int, seconds: float, below: float) -> Sound:
    """Dialogue over a bed of music that is so many dB quieter."""
    return at_level(speech(seed, seconds), -20) + at_level(music(seed, seconds), -20 - below)
