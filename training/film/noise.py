"""Textures: one tileable sheet of noises, looked up wherever a surface wants grain, clouds, leaves or waves.

`cloud` and `fine` are Gaussian noises whose amplitude falls with frequency (exponents 1.6 and 0.9); `leaves` is the
dead leaves model, overlapping discs whose radii follow a power law, which has the statistics of photographs (Lee,
Mumford and Huang 2001).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

SIDE = 1024
SEED = 7
LEAVES = 9_000
SMALLEST, LARGEST = 3.0, 90.0  # radii in pixels of the sheet


class Sheet:
    """The textures on one device: values 0..1, channels cloud, fine, red, green and blue of the leaves."""

    def __init__(self, device: torch.device | str) -> None:
        self._sheet = torch.from_numpy(_channels()).to(device)[None]

    def look_up(self, x: Tensor, y: Tensor, channels: slice) -> Tensor:
        """Sample the sheet, which repeats itself for ever.

        Args:
            x: columns in sheets (1 is the whole width), of shape (b, T, H, W).
            y: rows, likewise.
            channels: which ones.

        Returns:
            Shape (b, T, channels, H, W).
        """
        grid = torch.stack([x + 0 * y, y + 0 * x], dim=-1)
        b, t, h, w = grid.shape[:-1]
        grid = (grid - grid.floor()) * 2 - 1
        found = F.grid_sample(self._sheet[:, channels], grid.reshape(1, b * t * h, w, 2), align_corners=False)
        return found.reshape(-1, b, t, h, w).permute(1, 2, 0, 3, 4)

    def cloud(self, x: Tensor, y: Tensor) -> Tensor:
        """Soft noise, (b, T, H, W)."""
        return self.look_up(x, y, slice(0, 1))[:, :, 0]

    def fine(self, x: Tensor, y: Tensor) -> Tensor:
        """Rough noise, (b, T, H, W)."""
        return self.look_up(x, y, slice(1, 2))[:, :, 0]

    def leaves(self, x: Tensor, y: Tensor) -> Tensor:
        """Coloured discs, (b, T, 3, H, W)."""
        return self.look_up(x, y, slice(2, 5))


def hashed(cell: Tensor, salt: Tensor | float) -> Tensor:
    """A number 0..1 for each whole number: which building is how high, which window is lit."""
    return wrap(torch.sin(cell * 12.9898 + salt * 78.233) * 43_758.547)


def wrap(values: Tensor) -> Tensor:
    """The part behind the whole number below, 0..1."""
    return values - values.floor()


@lru_cache(maxsize=1)
def _channels() -> NDArray[np.float32]:
    rng = np.random.default_rng(SEED)
    return np.concatenate([np.stack([_gaussian(rng, 1.6), _gaussian(rng, 0.9)]), _leaves(rng)]).astype(np.float32)


def _gaussian(rng: np.random.Generator, slope: float) -> Floats:
    across, down = np.fft.rfftfreq(SIDE), np.fft.fftfreq(SIDE)
    radius = np.hypot(down[:, None], across[None])
    radius[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(SIDE, SIDE))) * radius**-slope
    field = np.fft.irfft2(spectrum, (SIDE, SIDE))
    return np.asarray((0.5 + field / (4 * field.std())).clip(0, 1))


def _leaves(rng: np.random.Generator) -> Floats:
    """Discs of radius r with density r**-3, each laid over those before it; shading within each."""
    sheet = np.full((3, SIDE, SIDE), 0.4)
    u = rng.random(LEAVES)
    radii = (LARGEST**-2 + u * (SMALLEST**-2 - LARGEST**-2)) ** -0.5
    order = rng.permutation(LEAVES)
    middles = rng.integers(0, SIDE, (LEAVES, 2))
    colours = (rng.dirichlet((3, 3, 3), LEAVES) * 3 * rng.uniform(0.05, 0.9, (LEAVES, 1))).clip(0, 1)
    for disc in order:
        reach = int(radii[disc]) + 1
        span = np.arange(-reach, reach + 1)
        inside = span[:, None] ** 2 + span[None] ** 2 <= radii[disc] ** 2
        rows, columns = (middles[disc, 0] + span) % SIDE, (middles[disc, 1] + span) % SIDE
        shade = 1 + 0.3 * (span[:, None] * rng.uniform(-1, 1) + span[None] * rng.uniform(-1, 1)) / reach
        patch = sheet[:, rows[:, None], columns[None]]
        sheet[:, rows[:, None], columns[None]] = np.where(inside, colours[disc, :, None, None] * shade, patch)
    return sheet.clip(0, 1)
