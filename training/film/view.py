"""What a painter works with: some shots' numbers on the device, and where each pixel looks in the world."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from torch import Tensor

from training.film.camera import Path
from training.film.noise import Sheet
from training.film.scenes import Scenes, frame_times


@dataclass(frozen=True, slots=True)
class Painted:
    """A picture before the light falls on it. Shapes (b, T, 3, H, W), distance (b, T, 1, H, W).

    Attributes:
        albedo: colour of the surfaces, linear light, 0..1.
        glow: light that they give of themselves.
        distance: 0 at the lens, 1 far away, 2 the sky.
    """

    albedo: Tensor
    glow: Tensor
    distance: Tensor

    def over(self, mask: Tensor, albedo: Tensor, distance: float | Tensor, glow: Tensor | float = 0.0) -> Painted:
        """Lay a surface over what is there.

        Args:
            mask: 0..1 of shape (b, T, H, W).
            albedo: colour, broadcastable to (b, T, 3, H, W).
            distance: how far away the surface is.
            glow: light of its own, broadcastable likewise.
        """
        mask = mask[:, :, None]
        return Painted(
            self.albedo + mask * (albedo - self.albedo),
            self.glow + mask * (glow - self.glow),
            self.distance + mask * (distance - self.distance),
        )

    def add_glow(self, light: Tensor) -> Painted:
        """Add light without a surface."""
        return Painted(self.albedo, self.glow + light, self.distance)


class View:
    """Some shots of a batch.

    Args:
        scenes: b shots.
        height: pixels.
        width: pixels.
        sheet: the textures.
        device: where to paint.
    """

    def __init__(self, scenes: Scenes, height: int, width: int, sheet: Sheet, device: torch.device | str) -> None:
        self.sheet = sheet
        self.device = device
        self.height, self.width = height, width
        self.aspect = width / height
        down = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * 2 / height - 1
        across = ((torch.arange(width, device=device, dtype=torch.float32) + 0.5) * 2 / width - 1) * self.aspect
        self.x, self.y = across[None, None, None, :], down[None, None, :, None]
        self._numbers = {
            field.name: torch.as_tensor(np.asarray(value), device=device)
            for field in fields(scenes)
            if not isinstance(value := getattr(scenes, field.name), Path)
        }
        path = scenes.path
        self.frames = path.x.shape[1]
        self.shots = len(scenes)
        self.moment = torch.as_tensor(frame_times(self.frames), device=device)[None, :, None, None]
        self._path = {field.name: torch.as_tensor(getattr(path, field.name), device=device) for field in fields(path)}

    def number(self, name: str) -> Tensor:
        """A number of each shot, (b, 1, 1, 1), or of each frame, (b, T, 1, 1)."""
        value = self._numbers[name]
        return value.reshape(*value.shape, *[1] * (4 - value.ndim))

    def layout(self, index: int) -> Tensor:
        """One of the numbers that a place makes of what it wants, (b, 1, 1, 1)."""
        return self._numbers["layout"][:, index, None, None, None]

    def colour(self, name: str, index: int | None = None) -> Tensor:
        """A colour of each shot, (b, 1, 3, 1, 1)."""
        value = self._numbers[name] if index is None else self._numbers[name][:, index]
        return value[:, None, :, None, None]

    def path(self, name: str) -> Tensor:
        """A coordinate of the camera, (b, T, 1, 1)."""
        return self._path[name][:, :, None, None]

    def at(self, depth: float) -> tuple[Tensor, Tensor]:
        """World coordinates of every pixel on a plane.

        Args:
            depth: of the plane; the subject's is 1. What is farther passes more slowly when the camera travels.

        Returns:
            x and y, each (b, T, H, W).
        """
        scale = torch.exp(-self.path("zoom"))
        cos, sin = torch.cos(self.path("roll")) * scale, torch.sin(self.path("roll")) * scale
        x = self.x * cos + self.y * sin + self.path("x") + self.path("travel") / depth
        y = self.y * cos - self.x * sin + self.path("y")
        return x, y

    def inside(self, distance: Tensor) -> Tensor:
        """1 where a signed distance (negative inside) is inside, with an edge one pixel wide."""
        pixel = 2 / self.height * torch.exp(-self.path("zoom"))
        return (0.5 - distance / (1.5 * pixel)).clamp(0, 1)

    def texture(self, x: Tensor, y: Tensor, scale: float, kind: str = "fine") -> Tensor:
        """A texture of the shot's own at world coordinates; `scale` is sheets a half picture height."""
        offset = self._numbers["offset"]
        x = x * scale + offset[:, 0, None, None, None]
        y = y * scale + offset[:, 1, None, None, None]
        found: Tensor = getattr(self.sheet, kind)(x, y)
        return found

    @property
    def salt(self) -> Tensor:
        """A number of the shot's own for hashes, (b, 1, 1, 1)."""
        return self._numbers["offset"][:, 0, None, None, None]

    def is_time(self, index: int) -> Tensor:
        """1 for shots at that time of day, (b, 1, 1, 1)."""
        return (self.number("time") == index).float()


def rgb(view: View, red: float, green: float, blue: float) -> Tensor:
    """A fixed colour, (1, 1, 3, 1, 1)."""
    return _fixed_colour((red, green, blue), view.device)


@cache
def _fixed_colour(values: tuple[float, float, float], device: torch.device | str) -> Tensor:
    # Made once: each copy to a GPU makes the painter wait.
    return torch.tensor(values, device=device)[None, None, :, None, None]


def by_time(view: View, day: Tensor, dusk: Tensor, night: Tensor) -> Tensor:
    """A colour for each time of day, (b, 1, 3, 1, 1)."""
    return sum((view.is_time(i)[:, :, None] * colour for i, colour in enumerate((day, dusk, night))), torch.zeros(()))
