"""What is true of a scene: its six scores for each frame, and its caption.

With, each between 0 and 1:

    dark      1 - L*/100 of the frame's mean luminance (CIE 1976), measured from its pixels
    motion    1 - exp(-D / 0.16); D: how far the picture moves between neighbouring frames, in picture widths,
              plus half of what the subject moves of its own, by the square root of the area that it covers
    close     how much a place shuts one in        fog, blur, hard, tension   as drawn
    big       height of the subject in the picture, alone: one person or nobody, face, fire, crowd: 1 if it is one

    suspense           .05 + .40 dark + .18 close + .17 fog + .10 alone + .15 face * tension
    darkness           dark
    ambiguity          .05 + .35 fog + .30 blur + .30 max(0, 2 dark - 1) + .10 nobody
    emotional_tension  .05 + .45 face * tension + .15 face + .15 dark + .15 fire + .08 crowd + .10 hard
    intensity          .05 + .40 motion + .25 fire + .15 big + .12 crowd + .12 hard
    motion             motion

each clipped to 0..1. They are choices, made so that a picture holds all that is needed to tell them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.film.camera import MOVES, mean_displacement
from training.film.scenes import ALL_PLACES, SUBJECTS, TIMES, WEATHERS, Scenes

ATTRIBUTES = ("suspense", "darkness", "ambiguity", "emotional_tension", "intensity", "motion")
MOTION_SCALE = 0.16  # picture widths between frames at which motion is 0.63

CLOSENESS = {
    "room": 0.5, "corridor": 1.0, "street": 0.4, "forest": 0.8, "sea": 0.15, "sky": 0.0, "field": 0.1,
    "texture": 0.4, "title": 0.0, "desert": 0.15, "mountains": 0.4, "bridge": 0.4,
}  # fmt: skip
# Share of the picture that a subject of size 1 covers, in 16:9.
AREA = {"nobody": 0.0, "person": 0.14, "two": 0.25, "face": 0.4, "crowd": 0.4, "car": 0.55, "fire": 0.4, "title": 0.0}

WHO = {
    "nobody": "Nobody", "person": "A person", "two": "Two people", "face": "A face in close-up", "crowd": "A crowd",
    "car": "A car", "fire": "A fire", "title": "A title card",
}  # fmt: skip
WHERE = {
    "room": "in a room", "corridor": "in a corridor", "street": "on a street", "forest": "in a forest",
    "sea": "by the sea", "sky": "under the open sky", "field": "in a field",
    "desert": "in a desert", "mountains": "in the mountains", "bridge": "by a bridge",
}  # fmt: skip
WHEN = {"day": "by day", "dusk": "at dusk", "night": "at night"}
WEATHER = {"clear": "", "fog": " in fog", "rain": " in rain"}
CAMERA = {
    "still": "the camera stands still", "pan left": "the camera pans left", "pan right": "the camera pans right",
    "tilt up": "the camera tilts up", "tilt down": "the camera tilts down", "zoom in": "the camera zooms in",
    "zoom out": "the camera zooms out", "follow": "the camera follows", "hand-held": "the camera is hand-held",
    "cut": "cut closer",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of a batch of shots.

    Attributes:
        scores: float32 of shape (B, T, attributes), in the order of ATTRIBUTES.
        captions: one a shot; empty where nothing can be named.
    """

    scores: NDArray[np.float32]
    captions: list[str]


def tell_truth(scenes: Scenes, film: Tensor) -> Truth:
    """Scores and captions.

    Args:
        scenes: B shots.
        film: their frames as rendered, uint8 of shape (B, T, 3, H, W).
    """
    return Truth(scores(scenes, darkness(film).cpu().numpy(), film.shape[-1] / film.shape[-2]), captions(scenes))


def darkness(film: Tensor) -> Tensor:
    """1 - L*/100 of each frame's mean relative luminance (IEC 61966-2-1, BT.709, CIE 1976).

    Args:
        film: uint8 sRGB of shape (B, T, 3, H, W).

    Returns:
        float32 of shape (B, T), 0 white to 1 black.
    """
    coded = torch.arange(256, device=film.device) / 255
    linear = torch.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    weights = torch.tensor((0.2126, 0.7152, 0.0722), device=film.device)
    # Every second pixel is enough for a mean, and a quarter of the memory.
    light = linear[film[..., ::2, ::2].int()].mean(dim=(-2, -1)) @ weights
    root = torch.where(light > (6 / 29) ** 3, light.clamp(min=1e-9) ** (1 / 3), light / (3 * (6 / 29) ** 2) + 4 / 29)
    return (1 - (116 * root - 16) / 100).clamp(0, 1)


def motion(scenes: Scenes, aspect: float) -> NDArray[np.float64]:
    """How much moves, 0..1, (B,)."""
    if scenes.path.x.shape[1] < 2:
        return np.zeros(len(scenes))
    area = np.minimum(1, np.array([AREA[name] for name in SUBJECTS])[scenes.subject] * scenes.size**2)
    # A followed subject stands still in the picture.
    follows = scenes.move == MOVES.index("follow")
    camera = mean_displacement(scenes.path, scenes.move, aspect) * np.where(follows, 1 - area, 1)
    own = np.abs(scenes.velocity) / (scenes.path.x.shape[1] - 1) / (2 * aspect)
    return np.asarray(1 - np.exp(-(camera + 0.5 * np.sqrt(area) * own) / MOTION_SCALE))


def scores(scenes: Scenes, dark: NDArray[np.float32], aspect: float) -> NDArray[np.float32]:
    """The six scores of each frame, (B, T, attributes); `dark` is (B, T)."""

    def among(*names: str) -> NDArray[np.float64]:
        return np.isin(scenes.subject, [SUBJECTS.index(name) for name in names]).astype(float)[:, None]

    close = np.array([CLOSENESS[name] for name in ALL_PLACES])[scenes.place][:, None]
    fog, blur, hard = scenes.fog[:, None], scenes.blur[:, None], scenes.hard[:, None]
    face, fire, crowd, nobody = among("face"), among("fire"), among("crowd"), among("nobody")
    fear = face * scenes.tension[:, None]
    big = np.minimum(1, scenes.size)[:, None] * (1 - nobody)
    moving = np.broadcast_to(motion(scenes, aspect)[:, None], dark.shape)
    by_name: dict[str, NDArray[np.floating]] = {
        "suspense": 0.05 + 0.4 * dark + 0.18 * close + 0.17 * fog + 0.1 * among("person", "nobody") + 0.15 * fear,
        "darkness": dark,
        "ambiguity": 0.05 + 0.35 * fog + 0.3 * blur + 0.3 * np.maximum(0, 2 * dark - 1) + 0.1 * nobody,
        "emotional_tension": 0.05 + 0.45 * fear + 0.15 * (face + dark + fire) + 0.08 * crowd + 0.1 * hard,
        "intensity": 0.05 + 0.4 * moving + 0.25 * fire + 0.15 * big + 0.12 * (crowd + hard),
        "motion": moving,
    }
    return np.stack([by_name[name] for name in ATTRIBUTES], axis=-1).clip(0, 1).astype(np.float32)


def captions(scenes: Scenes) -> list[str]:
    """One sentence a shot: who, where, when, in what weather, and how the camera moves."""
    return [
        _caption(ALL_PLACES[place], SUBJECTS[subject], TIMES[time], WEATHERS[weather], MOVES[move])
        for place, subject, time, weather, move in zip(
            scenes.place, scenes.subject, scenes.time, scenes.weather, scenes.move, strict=True
        )
    ]


def _caption(place: str, subject: str, time: str, weather: str, move: str) -> str:
    if place == "texture":
        return ""
    if place == "title":
        return f"{WHO['title']}, {CAMERA[move]}."
    return f"{WHO[subject]} {WHERE[place]} {WHEN[time]}{WEATHER[weather]}, {CAMERA[move]}."


def all_words() -> Sequence[str]:
    """Every phrase that captions are made of."""
    return [*WHO.values(), *WHERE.values(), *WHEN.values(), *WEATHER.values(), *CAMERA.values()]
