"""The shots that a checkpoint is judged by: frames of a real film, and the same frames darker, brighter or panned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.base import Picture, ShotPictures

FRAMES = Path(__file__).parent.parent.parent / "samples" / "frames"

# Three key frames each; times and licence in samples/ATTRIBUTION.md.
FILM_SHOTS = ("snow", "firelight", "fight", "alley", "ruins", "face", "dragon", "dunes")

# Bright enough that each step of the ladder changes them.
EXPOSED_SHOTS = ("snow", "dragon", "dunes")
STOPS = (-4, -2, -1, 0, 1)  # photographic stops: each doubles the light

# Full of detail, so that a pan is seen.
PANNED_SHOTS = ("alley", "ruins", "dragon")
SPEEDS = (0.0, 0.0125, 0.0375, 0.1, 0.2)  # widths of the picture from one key frame to the next
WINDOW = 0.6  # width of the part that is seen; it travels 2 * 0.2 widths at most


def film_shot(name: str) -> ShotPictures:
    """The three key frames of a shot of the Sintel trailer, 480 x 204."""
    return ShotPictures(tuple(_read(FRAMES / f"{name}-{number}.jpg") for number in (1, 2, 3)))


def exposed(shot: ShotPictures, stops: float) -> ShotPictures:
    """The shot with 2 ** stops times the light, as a camera's exposure changes it; what is too bright clips."""
    return ShotPictures(tuple(_expose(picture, 2.0**stops) for picture in shot.pictures))


def panned(picture: Picture, speed: float) -> ShotPictures:
    """Three key frames of a camera that pans over a still picture from its left edge.

    Args:
        picture: (height, width, 3).
        speed: widths of the picture from one key frame to the next, 0 to (1 - WINDOW) / 2.
    """
    width = picture.shape[1]
    window = round(WINDOW * width)
    starts = [round(number * speed * width) for number in range(3)]
    return ShotPictures(tuple(picture[:, start : start + window] for start in starts))


def unequal_shots() -> list[ShotPictures]:
    """Shots of different lengths and sizes: in one batch they need padding, and some wait while others still write."""
    whole, close, narrow, short = (film_shot(name).pictures for name in ("snow", "firelight", "alley", "dunes"))
    half = narrow[0].shape[1] // 2
    return [
        ShotPictures(whole),
        ShotPictures(close[:1]),
        ShotPictures(tuple(picture[:, :half] for picture in narrow)),
        ShotPictures(short[:2]),
    ]


def _read(file: Path) -> Picture:
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))


def _expose(picture: Picture, gain: float) -> Picture:
    light = _to_light(picture.astype(np.float64) / 255)
    return np.round(255 * _from_light(np.minimum(light * gain, 1.0))).astype(np.uint8)


def _to_light(coded: NDArray[np.float64]) -> NDArray[np.float64]:
    """SRGB values 0..1 in linear light (IEC 61966-2-1)."""
    light: NDArray[np.float64] = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    return light


def _from_light(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `_to_light`."""
    coded: NDArray[np.float64] = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return coded
