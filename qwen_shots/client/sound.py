"""How a shot sounds: librosa's features with the names and units of the wire."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen_shots.audio import SILENCE_DBFS
from qwen_shots.client.shots import Span
from qwen_shots.client.soundtrack import RATE, Sound, sounds_of
from qwen_shots.schemas import AudioFeatures

COEFFICIENTS = 13

# Two beats at 60 a minute; in less, librosa's tempo is its own prior (120) and says nothing of the sound.
TEMPO_FROM_SECONDS = 2.0


def features_of(path: Path, shots: Iterable[Span]) -> Iterator[AudioFeatures | None]:
    """The features of each shot's sound; None where the film has none there.

    Args:
        path: the film file, read once.
        shots: in order of time.

    Raises:
        FilmError: the film can't be opened.
    """
    for sound in sounds_of(path, shots):
        yield None if sound is None else features(sound)


def features(sound: Sound) -> AudioFeatures:
    """What librosa measures, with its defaults (windows of 2,048 samples, hops of 512) and from one spectrum.

    Args:
        sound: (samples,) at RATE, at least one sample.

    Returns:
        Every field, and `tempo` None where the sound is shorter than TEMPO_FROM_SECONDS or silent.
    """
    import librosa

    spectrum = _spectrum(sound)
    decibels = librosa.power_to_db(librosa.feature.melspectrogram(S=spectrum**2, sr=RATE))
    mfcc = librosa.feature.mfcc(S=decibels, n_mfcc=COEFFICIENTS)
    centroid = librosa.feature.spectral_centroid(S=spectrum, sr=RATE)
    rms = librosa.feature.rms(y=sound)
    silent = 20 * math.log10(max(float(rms.mean()), 1e-9)) <= SILENCE_DBFS
    rhythmic = not silent and len(sound) >= TEMPO_FROM_SECONDS * RATE
    return AudioFeatures(
        mfcc_mean=_numbers(mfcc.mean(axis=1)),
        mfcc_std=_numbers(mfcc.std(axis=1)),
        spectral_centroid_mean=float(centroid.mean()),
        spectral_centroid_std=float(centroid.std()),
        spectral_rolloff_mean=float(librosa.feature.spectral_rolloff(S=spectrum, sr=RATE).mean()),
        spectral_bandwidth_mean=float(librosa.feature.spectral_bandwidth(S=spectrum, sr=RATE).mean()),
        zero_crossing_rate_mean=float(librosa.feature.zero_crossing_rate(sound).mean()),
        rms_energy_mean=float(rms.mean()),
        rms_energy_std=float(rms.std()),
        chroma_mean=_numbers(_chroma(spectrum, silent=silent).mean(axis=1)),
        tempo=_tempo(decibels) if rhythmic else None,
        duration=len(sound) / RATE,
    )


def _spectrum(sound: Sound) -> NDArray[np.float32]:
    """Magnitudes, (1025, windows)."""
    import librosa

    with warnings.catch_warnings():
        # A shot of a frame or two is shorter than a window; librosa sets zeros around it, as around every sound.
        warnings.filterwarnings("ignore", message="n_fft=.* is too large")
        return np.asarray(np.abs(librosa.stft(sound)), np.float32)


def _chroma(spectrum: NDArray[np.float32], *, silent: bool) -> NDArray[Any]:
    """Pitch classes, (12, windows). The tuning is estimated but in silence, which has none."""
    import librosa

    tuning = 0.0 if silent else None
    with warnings.catch_warnings():
        # Noise has no pitches to tune by, and librosa's answer of 0 is right.
        warnings.filterwarnings("ignore", message="Trying to estimate tuning from empty frequency set")
        return np.asarray(librosa.feature.chroma_stft(S=spectrum**2, sr=RATE, tuning=tuning))


def _tempo(decibels: NDArray[Any]) -> float:
    """Beats a minute."""
    import librosa
    from librosa.onset import onset_strength

    onsets = onset_strength(S=decibels, sr=RATE)
    return float(librosa.feature.tempo(onset_envelope=onsets, sr=RATE)[0])


def _numbers(values: NDArray[Any]) -> list[float]:
    return [float(value) for value in values]
