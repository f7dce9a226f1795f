"""A checkpoint on real film that it was never trained on: darkness against measured light, motion against optical flow.

Real shots have no true captions here; what the model says of them is printed, for a person to judge.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import spearmanr

from engines.base import Picture, ShotPictures
from engines.pixels import fit_shot
from engines.runner import ModelRunner
from model_loader import PictureSpec
from qwen_shots.client.frames import Still, stills_of
from qwen_shots.client.shots import Shot, find_shots
from qwen_shots.fusion import key_frame_indices
from qwen_shots.measure import luminance
from qwen_shots.media import decode_picture
from training.film.truth import ATTRIBUTES
from training.judge_scenes import ask, of_shot

FLOW_WIDTH = 240  # pixels; optical flow finds large movements in small pictures
MAX_PICTURE_TOKENS = 256  # the server's default
# A long shot is cut into pieces of about this length too, as the handful of shots of a clip is few to rank.
PIECE_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class FilmShot:
    """One shot of a film, as the model and as the instruments see it.

    Attributes:
        film: name of the file.
        shot: its times.
        caption: the model's.
        scores: the model's, by attribute.
        luminance: measured, 0..1 in linear light, mean over the frames.
        flow: measured, picture widths between neighbouring frames.
    """

    film: str
    shot: Shot
    caption: str
    scores: dict[str, float]
    luminance: float
    flow: float


def look_at_film(runner: ModelRunner, spec: PictureSpec, path: Path, shots: Sequence[Shot]) -> list[FilmShot]:
    """Show the model the shots of a film, five frames each, as the server would."""
    frames = [[_decode(still) for still in stills] for stills in stills_of(path, shots)]
    keyed = [ShotPictures(tuple(shot[k] for k in key_frame_indices(len(shot)))) for shot in frames]
    answers = ask(runner, [fit_shot(shot, spec, MAX_PICTURE_TOKENS) for shot in keyed])
    return [
        FilmShot(
            film=path.stem,
            shot=shot,
            caption=answer.caption,
            scores=dict(zip(ATTRIBUTES, of_shot(answer).tolist(), strict=True)),
            luminance=luminance(seen),
            flow=optical_flow(seen),
        )
        for shot, seen, answer in zip(shots, frames, answers, strict=True)
    ]


def _decode(still: Still) -> Picture:
    return decode_picture(base64.b64encode(still.jpeg).decode(), "frame")


def shots_and_pieces(path: Path) -> tuple[list[Shot], list[Shot]]:
    """A film's shots, and the same cut into pieces of about PIECE_SECONDS."""
    shots = find_shots(path)
    pieces = []
    for shot in shots:
        times = np.linspace(shot.start, shot.end, 1 + max(1, round(shot.duration / PIECE_SECONDS))).tolist()
        pieces += [Shot(start, end) for start, end in pairwise(times)]
    return shots, pieces


def optical_flow(frames: Sequence[Picture]) -> float:
    """Mean length of the flow between neighbouring frames, picture widths (DIS, Kroeger et al. 2016).

    One frame has none: 0.
    """
    grey = [_small_grey(frame) for frame in frames]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    lengths = [
        np.linalg.norm(dis.calc(before, after, np.zeros((*before.shape, 2), np.float32)), axis=-1).mean()
        for before, after in pairwise(grey)
    ]
    return float(np.mean(lengths)) / FLOW_WIDTH if lengths else 0.0


def _small_grey(frame: Picture) -> cv2.typing.MatLike:
    height = round(frame.shape[0] * FLOW_WIDTH / frame.shape[1])
    return cv2.cvtColor(cv2.resize(frame, (FLOW_WIDTH, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def agreement(seen: Sequence[FilmShot]) -> dict[str, float]:
    """Rank correlations: darkness with the lack of light, motion with the flow."""
    dark, moving = ([one.scores[name] for one in seen] for name in ("darkness", "motion"))
    return {
        "darkness": float(spearmanr(dark, [-one.luminance for one in seen]).statistic),
        "motion": float(spearmanr(moving, [one.flow for one in seen]).statistic),
    }
