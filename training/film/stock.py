"""What happens between a painted scene and the film: light, fog, rain, lens, exposure, grading and grain."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from training.film.places import sky_colours
from training.film.view import Painted, View, by_time, rgb

ENCODING = 1 / 2.2  # display gamma, near enough to sRGB's
PIVOT = 0.45  # the brightness that a change of contrast leaves as it is
INDOOR = ("room", "corridor")


def light_up(view: View, painted: Painted, *, indoors: bool) -> Tensor:
    """Light that reaches the camera, linear, (b, T, 3, H, W)."""
    day, dusk, night = rgb(view, 1, 1, 1), rgb(view, 0.62, 0.4, 0.27), rgb(view, 0.075, 0.1, 0.17)
    if indoors:
        day, dusk, night = rgb(view, 0.8, 0.82, 0.85), rgb(view, 0.5, 0.32, 0.2), rgb(view, 0.15, 0.125, 0.11)
    level = by_time(view, day, dusk, night)
    hard, angle = view.number("hard"), view.number("light_angle")
    across = torch.cos(angle) * view.x / view.aspect + torch.sin(angle) * view.y
    side = torch.tanh((across + 0.3 * (view.layout(5) - 0.5)) * (0.6 + 6 * hard)) * (0.12 + 0.45 * hard)
    lit = painted.albedo * level * (1 + side)[:, :, None] + painted.glow
    return _rain(view, _fog(view, lit, painted.distance))


def _fog(view: View, light: Tensor, distance: Tensor) -> Tensor:
    _, low = sky_colours(view)
    veil = 0.22 * low + 0.25 * low.mean(dim=2, keepdim=True)
    thick = 1 - torch.exp(-view.number("fog")[:, :, None] * 2.6 * distance)
    return light + thick * (veil - light)


def _rain(view: View, light: Tensor) -> Tensor:
    """Slanting streaks, other ones in each frame, under a darker light."""
    rain = view.number("rain")
    if not bool((rain > 0).any()):
        return light
    slant = view.x + 0.12 * view.y
    drops = view.texture(slant * 5 + 13.7 * view.moment, view.y * 0.35 + 9.1 * view.moment, 1.0)
    streak = ((drops - 0.68) * 10).clamp(0, 1) * rain
    _, low = sky_colours(view)
    return light * (1 - 0.25 * rain)[:, :, None] + streak[:, :, None] * (0.12 * low.mean(dim=2, keepdim=True) + 0.03)


def expose(view: View, light: Tensor) -> Tensor:
    """From light to 8-bit pictures.

    Args:
        view: the shots.
        light: linear, (b, T, 3, H, W).

    Returns:
        uint8, (b, T, 3, H, W).
    """
    tint = torch.cat(
        [1 + 0.3 * view.number("warmth"), torch.ones_like(view.number("warmth")), 1 - 0.3 * view.number("warmth")],
        dim=1,
    )
    radius = (view.x / view.aspect).square() + view.y.square()
    gain = torch.exp2(view.number("exposure")) * (1 - view.number("vignette") * 0.5 * radius)
    light = _lens(view, light) * tint[:, None, :, 0, 0, None, None] * gain[:, :, None]
    shown = (1 - torch.exp(-1.8 * light.clamp(min=0))).clamp(min=1e-6) ** ENCODING
    shown = _contrast(shown, view.number("contrast")[:, :, None])
    grey = shown.mean(dim=2, keepdim=True)
    shown = grey + view.number("saturation")[:, :, None] * (shown - grey)
    shown = shown + _grain(view)[:, :, None]
    bars = (view.y.abs() < 1 - 2 * view.number("bars")).float()
    return ((shown * bars[:, :, None]).clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def _contrast(shown: Tensor, steep: Tensor) -> Tensor:
    """An S-shaped curve through black, the pivot and white."""
    shown = shown.clamp(max=1 - 1e-6)
    odds = (shown / (1 - shown) * (1 - PIVOT) / PIVOT) ** steep * PIVOT / (1 - PIVOT)
    return odds / (1 + odds)


def _grain(view: View) -> Tensor:
    """White noise, other in each frame."""
    rows, columns = view.height / 256, view.width / 256
    x = view.x / view.aspect * columns + view.salt + 7.3 * view.moment
    y = view.y * rows + 3.1 * view.salt + 5.9 * view.moment
    noise = view.sheet.fine(x, y) - view.sheet.fine(x + 1 / 512, y + 1 / 300)
    return noise * 3 * view.number("grain")


def _lens(view: View, light: Tensor) -> Tensor:
    """Out of focus: mixed with a coarser and a much coarser picture."""
    blur = view.number("blur")
    rows = (blur.flatten() > 0).nonzero().flatten()
    if len(rows) == 0:
        return light
    some = light[rows].flatten(0, 1)
    amount = blur[rows].repeat_interleave(view.frames, dim=0).reshape(-1, 1, 1, 1)
    soft, softer = (_coarse(some, size) for size in (4, 10))
    mixed = torch.lerp(some, soft, (2 * amount).clamp(max=1))
    mixed = torch.lerp(mixed, softer, (2 * amount - 1).clamp(min=0))
    return light.index_copy(0, rows, mixed.reshape(len(rows), view.frames, *light.shape[2:]))


def _coarse(pictures: Tensor, size: int) -> Tensor:
    small = F.avg_pool2d(pictures, size, ceil_mode=True)
    return F.interpolate(small, size=pictures.shape[-2:], mode="bilinear", align_corners=False)
