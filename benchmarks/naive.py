"""The way that a first script goes about it, with the same libraries, as the benchmark's baseline."""

from __future__ import annotations

import base64
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import httpx
import librosa
import numpy as np
import scenedetect
from numpy.typing import NDArray

from qwen_shots.client.frames import times_of
from qwen_shots.client.store import ShotRecord

RATE = 22_050

Heard: TypeAlias = Callable[[Path, ShotRecord], NDArray[np.float32]]


def cut(film: Path, seconds: float) -> None:
    """PySceneDetect by its front door."""
    scenedetect.detect(str(film), scenedetect.AdaptiveDetector(), end_time=seconds)


def analyze_all(film: Path, shots: Sequence[ShotRecord], url: str, key: str, heard: Heard) -> None:
    """One shot after another, each all by itself."""
    for shot in shots:
        body = {
            "shot_id": shot.number,
            "images": frames(film, shot),
            "audio_features": features(heard(film, shot)),
            "start_time": shot.start,
            "end_time": shot.end,
            "duration": shot.duration,
        }
        headers = {"Authorization": f"Bearer {key}"}
        httpx.post(f"{url}/analyze_batch", json={"shots": [body]}, headers=headers).raise_for_status()


def frames(film: Path, shot: ShotRecord) -> list[str]:
    """Five pictures, each sought in the film."""
    video = cv2.VideoCapture(str(film))
    found = []
    for time in times_of(shot):
        video.set(cv2.CAP_PROP_POS_MSEC, time * 1000)
        there, picture = video.read()
        assert there
        found.append(base64.b64encode(cv2.imencode(".jpg", picture)[1].tobytes()).decode())
    video.release()
    return found


def sound(film: Path, shot: ShotRecord) -> NDArray[np.float32]:
    """The segment's sound, by librosa. It has no way to seek in a film: what is before the segment is decoded too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of soundfile, which reads no films, and audioread, which does
        return np.asarray(librosa.load(film, sr=RATE, offset=shot.start, duration=shot.duration)[0], np.float32)


def sought_sound(film: Path, shot: ShotRecord) -> NDArray[np.float32]:
    """The same, with ffmpeg to seek: what somebody writes who has waited for the other one."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        segment = ("-ss", str(shot.start), "-t", str(shot.duration), "-i", str(film), "-vn", file.name)
        subprocess.run(["ffmpeg", "-v", "error", "-y", *segment], check=True, stdin=subprocess.DEVNULL)
        return np.asarray(librosa.load(file.name, sr=RATE)[0], np.float32)


def features(heard: NDArray[np.float32]) -> dict[str, Any]:
    """Each feature by librosa's own function from the samples."""
    mfcc = librosa.feature.mfcc(y=heard, sr=RATE, n_mfcc=13)
    centroid = librosa.feature.spectral_centroid(y=heard, sr=RATE)
    rms = librosa.feature.rms(y=heard)
    return {
        "mfcc_mean": mfcc.mean(axis=1).tolist(),
        "mfcc_std": mfcc.std(axis=1).tolist(),
        "spectral_centroid_mean": float(centroid.mean()),
        "spectral_centroid_std": float(centroid.std()),
        "spectral_rolloff_mean": float(librosa.feature.spectral_rolloff(y=heard, sr=RATE).mean()),
        "spectral_bandwidth_mean": float(librosa.feature.spectral_bandwidth(y=heard, sr=RATE).mean()),
        "zero_crossing_rate_mean": float(librosa.feature.zero_crossing_rate(heard).mean()),
        "rms_energy_mean": float(rms.mean()),
        "rms_energy_std": float(rms.std()),
        "chroma_mean": librosa.feature.chroma_stft(y=heard, sr=RATE).mean(axis=1).tolist(),
        "tempo": float(librosa.feature.tempo(y=heard, sr=RATE)[0]),
        "duration": len(heard) / RATE,
    }
