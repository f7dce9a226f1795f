"""A checkpoint against scenes whose truth is known: rendered from seeds that no training has used.

The model is asked by the server's own runner, and its scores are taken as it gives them, before any measurement or
sound touches them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from engines.base import ShotPictures, ShotReading
from engines.runner import ModelRunner
from qwen_shots.errors import QwenShotsError
from qwen_shots.fusion import key_frame_indices, key_frame_weights
from qwen_shots.scoring import Reading
from training.film.camera import MOVES
from training.film.render import Renderer
from training.film.scenes import ALL_PLACES, SUBJECTS, TIMES, draw_scenes
from training.film.truth import ATTRIBUTES, CAMERA, WHEN, WHERE, WHO, tell_truth

FRAMES = 5
# Token rows and columns of the pictures: 16:9, 2.35:1 and 4:3 under the checkpoint's cap, and small pictures.
SIZES = ((8, 14), (7, 17), (9, 12), (6, 10))
TOKEN_SIDE = 28  # pixels
BATCH = 8
SLOTS = ("place", "time of day", "subject", "camera")


@dataclass(frozen=True, slots=True)
class KnownShots:
    """Rendered shots with what is true of them.

    Attributes:
        shots: their key frames.
        scores: of each shot, attributes in the order of ATTRIBUTES, (shots, attributes).
        named: for each shot the phrase that a right caption holds for each of SLOTS; empty where there is none.
    """

    shots: list[ShotPictures]
    scores: NDArray[np.float64]
    named: list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a checkpoint did.

    Attributes:
        shots: how many it saw.
        spearman: rank correlation of each attribute's score with the truth.
        error: mean absolute error over all attributes, by way of reading the answer.
        named: share of the captions that name each slot rightly.
    """

    shots: int
    spearman: dict[str, float]
    error: dict[str, float]
    named: dict[str, float]


def known_shots(seed: int, count: int, places: Sequence[str]) -> KnownShots:
    """Render shots; the same seed gives the same shots.

    Args:
        seed: of the first size's scenes; each further size has the next number.
        count: shots in all, a quarter of each size.
        places: kinds of scene.
    """
    keys = list(key_frame_indices(FRAMES))
    weights = np.asarray(key_frame_weights(len(keys)))
    renderer = Renderer()
    shots: list[ShotPictures] = []
    scores, named = [], []
    for number, (rows, columns) in enumerate(SIZES):
        scenes = draw_scenes(seed + number, count // len(SIZES), frames=FRAMES, aspect=columns / rows, places=places)
        film = renderer.frames(scenes.at_frames(keys), rows * TOKEN_SIDE, columns * TOKEN_SIDE)
        scores.append(np.tensordot(tell_truth(scenes, film).scores, weights, axes=(1, 0)))
        shots += [ShotPictures(tuple(frames)) for frames in film.permute(0, 1, 3, 4, 2).contiguous().numpy()]
        named += [
            _phrases(ALL_PLACES[place], TIMES[time], SUBJECTS[subject], MOVES[move])
            for place, time, subject, move in zip(scenes.place, scenes.time, scenes.subject, scenes.move, strict=True)
        ]
    return KnownShots(shots, np.concatenate(scores), named)


def _phrases(place: str, time: str, subject: str, move: str) -> tuple[str, ...]:
    if place == "texture":
        return ("",) * len(SLOTS)
    if place == "title":
        return "", "", WHO[subject], CAMERA[move]
    return WHERE[place], WHEN[time], WHO[subject], CAMERA[move]


def ask(runner: ModelRunner, shots: Sequence[ShotPictures]) -> Iterator[ShotReading]:
    """One reading a shot.

    Raises:
        QwenShotsError: the model's numbers are none.
    """
    for start in range(0, len(shots), BATCH):
        for answer in runner.look(shots[start : start + BATCH]):
            if isinstance(answer, QwenShotsError):
                raise answer
            yield answer


def of_shot(reading: ShotReading, field: str = "value") -> NDArray[np.float64]:
    """A shot's scores from its key frames', (attributes,); `field` is what is taken of each `Reading`."""
    frames = [_values(reading.readings[name], field) for name in ATTRIBUTES]
    return np.asarray(np.asarray(frames) @ np.asarray(key_frame_weights(len(frames[0]))))


def _values(readings: Sequence[Reading], field: str) -> list[float]:
    return [getattr(reading, field) for reading in readings]


def judge(readings: Sequence[ShotReading], truth: KnownShots) -> Judgement:
    """Compare what the model said with what is true."""
    answers = np.stack([of_shot(reading) for reading in readings])
    modes = np.stack([of_shot(reading, "mode") for reading in readings])
    return Judgement(
        shots=len(readings),
        spearman={
            name: float(spearmanr(answers[:, a], truth.scores[:, a]).statistic) for a, name in enumerate(ATTRIBUTES)
        },
        error={
            "expected value": float(np.abs(answers - truth.scores).mean()),
            "likeliest answer": float(np.abs(modes - truth.scores).mean()),
            "always 0.5": float(np.abs(0.5 - truth.scores).mean()),
        },
        named=_share_named([reading.caption for reading in readings], truth.named),
    )


def _share_named(captions: Sequence[str], named: Sequence[tuple[str, ...]]) -> dict[str, float]:
    shares = {}
    for slot, name in enumerate(SLOTS):
        asked = [(caption, phrases[slot]) for caption, phrases in zip(captions, named, strict=True) if phrases[slot]]
        shares[name] = sum(_holds(caption, phrase) for caption, phrase in asked) / len(asked)
    return shares


def _holds(caption: str, phrase: str) -> bool:
    """Whether the words stand in the caption, not as part of longer ones."""
    return f" {phrase} " in f" {caption.replace(',', ' ').replace('.', ' ')} ".replace("  ", " ")
