"""Where the camera looks at each moment of a shot.

A turn of the camera (pan, tilt, hand-held) shifts near and far alike. A camera that follows travels: what is near
passes faster than what is far, and the subject stays in the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MOVES = (
    "still", "pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out", "follow", "hand-held", "cut",
)  # fmt: skip

# Sideways movement between the first and the last frame, in picture widths (heights for tilts).
SLOWEST, FASTEST = 0.14, 1.1


@dataclass(frozen=True, slots=True)
class Path:
    """A batch of B paths at T moments; every array has shape (B, T).

    Attributes:
        x: of the middle of the picture, from turning, in half picture heights, to the right.
        y: likewise, downwards.
        travel: of the middle of the picture, from travelling to the right, at the subject's distance.
        zoom: natural logarithm of the magnification.
        roll: radians.
    """

    x: Floats
    y: Floats
    travel: Floats
    zoom: Floats
    roll: Floats

    def subset(self, rows: NDArray[np.int64]) -> Path:
        """Some of the shots."""
        return Path(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def at_frames(self, frames: list[int]) -> Path:
        """Some of the moments."""
        return Path(**{field.name: getattr(self, field.name)[:, frames] for field in fields(self)})


def draw_path(
    rng: np.random.Generator, move: NDArray[np.int64], times: Floats, aspect: float, focus: tuple[Floats, Floats]
) -> Path:
    """Draw a path for each shot.

    Args:
        rng: random numbers.
        move: index into MOVES for each shot, (B,).
        times: moments of the frames, 0..1, (T,).
        aspect: width over height of the picture.
        focus: x and y of what a zoom or a cut goes closer to, each (B,).
    """
    shots, frames = len(move), len(times)
    along = times[None] - 0.5
    shift = np.exp(rng.uniform(np.log(SLOWEST), np.log(FASTEST), shots))[:, None] * along
    kind = {name: (move == number)[:, None] for number, name in enumerate(MOVES)}
    shake = np.exp(rng.uniform(np.log(0.03), np.log(0.16), (shots, 1))) * rng.normal(0, 1, (2, shots, frames))
    x = np.select(
        [kind["pan right"], kind["pan left"], kind["hand-held"]], [2 * aspect * shift, -2 * aspect * shift, shake[0]], 0
    )
    y = np.select([kind["tilt down"], kind["tilt up"], kind["hand-held"]], [2 * shift, -2 * shift, shake[1]], 0)
    sign = np.where(rng.random((shots, 1)) < 0.5, 1, -1)
    travel = np.where(kind["follow"], 2 * aspect * sign * shift, 0)
    ratio = rng.uniform(0.3, 1.0, (shots, 1))
    cut = np.where(times[None] > rng.uniform(0.25, 0.75, (shots, 1)), rng.uniform(0.6, 1.1, (shots, 1)), 0)
    zoom = np.select([kind["zoom in"], kind["zoom out"], kind["cut"]], [ratio * times, ratio * (1 - times), cut], 0)
    # What is zoomed at keeps its place in the picture.
    x, y = (turn + place[:, None] * (1 - np.exp(-zoom)) for turn, place in zip((x, y), focus, strict=True))
    roll = np.where(kind["hand-held"], rng.normal(0, 0.035, (shots, frames)), 0)
    return Path(*(np.asarray(part, dtype=np.float32) for part in (x, y, travel, zoom, roll)))


def mean_displacement(path: Path, move: NDArray[np.int64], aspect: float) -> NDArray[np.float64]:
    """How far the picture moves between neighbouring frames, averaged over the picture and over the pairs of frames.

    Args:
        path: B paths at T moments, T >= 2.
        move: index into MOVES, (B,). A cut itself is no movement.
        aspect: width over height of the picture.

    Returns:
        Picture widths, (B,).
    """
    across, down = np.meshgrid(np.linspace(-0.8, 0.8, 5) * aspect, np.linspace(-0.8, 0.8, 3))
    points = (across.ravel() + 1j * down.ravel())[None, None]
    middle = (path.x + path.travel + 1j * path.y)[..., None]
    seen = (points - middle) * np.exp(path.zoom[..., None] + 1j * path.roll[..., None])
    steps = np.abs(np.diff(seen, axis=1)).mean(axis=2) / (2 * aspect)
    jumps = (move == MOVES.index("cut"))[:, None] & (np.abs(np.diff(path.zoom, axis=1)) > 0.1)
    return np.asarray(np.where(jumps, 0, steps).mean(axis=1), dtype=np.float64)
