"""Backgrounds: each place paints its surfaces from the shot's layout numbers and colours.

Everything repeats or goes on for ever to both sides, so that a camera that turns always finds something to see.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from training.film.noise import hashed, wrap
from training.film.view import Painted, View, by_time, rgb

SKY = 2.0  # distance of the sky
GROUND_LIGHT = 0.9


def paint_place(name: str, view: View) -> Painted:
    """Paint a place behind everything else."""
    return PAINTERS[name](view)


def sky_colours(view: View) -> tuple[Tensor, Tensor]:
    """Light of the sky overhead and at the horizon, (b, 1, 3, 1, 1)."""
    top = by_time(view, rgb(view, 0.22, 0.42, 0.85), rgb(view, 0.16, 0.13, 0.3), rgb(view, 0.008, 0.012, 0.035))
    low = by_time(view, rgb(view, 0.75, 0.85, 0.95), rgb(view, 0.95, 0.42, 0.12), rgb(view, 0.03, 0.04, 0.09))
    return top, low


def _sky(view: View, horizon: Tensor) -> Painted:
    """Gradient, clouds, and a sun or a moon."""
    x, y = view.at(50)
    top, low = sky_colours(view)
    height = ((horizon - y) / 1.4).clamp(0, 1)[:, :, None]
    light = low + height.sqrt() * (top - low)
    clouds = (view.texture(x, 2 * y, 0.18, "cloud") - 0.62 + 0.3 * view.layout(7)).clamp(0, 0.25) * 4
    light = light + clouds[:, :, None] * (0.75 * (low + 0.15 * top) - light) * 0.8
    ball = view.inside(torch.hypot(x - 2 * view.layout(6) + 1, y - horizon + 0.35 + 0.5 * view.layout(5)) - 0.11)
    shown = (view.layout(4) < 0.35).float()
    light = light + (ball * shown)[:, :, None] * (light.mean(dim=2, keepdim=True) * 2 + low)
    return Painted(torch.zeros_like(light), light, torch.full_like(light[:, :, :1], SKY))


def _level(view: View, low: float, high: float, index: int = 0) -> Tensor:
    return low + (high - low) * view.layout(index)


def _windows(view: View, x: Tensor, y: Tensor, per_x: float, per_y: float) -> tuple[Tensor, Tensor]:
    """Grid of windows: which pixels are panes, and which of those are lit."""
    column, row = x * per_x, y * per_y
    pane = ((wrap(column) - 0.5).abs() < 0.28) & ((wrap(row) - 0.5).abs() < 0.3)
    share = 0.05 + 0.25 * view.is_time(1) + 0.4 * view.is_time(2)
    lit = hashed(column.floor() + 57 * row.floor(), view.salt) < share
    return pane.float(), (pane & lit).float()


def _ground(view: View, painted: Painted, horizon: Tensor, colour: Tensor, depth: float = 1.5) -> Painted:
    """A textured plane below the horizon, in perspective."""
    x, y = view.at(depth)
    below = (y - horizon).clamp(min=0.02)
    grain = view.texture(x / (below + 0.15), 1 / (below + 0.15), 0.2)
    shade = (0.45 + 1.1 * grain)[:, :, None]
    distance = (0.12 / below).clamp(0.15, 1.2)[:, :, None]
    return painted.over(view.inside(horizon - y), colour * shade * GROUND_LIGHT, distance)


def _street(view: View) -> Painted:
    horizon = _level(view, -0.05, 0.35)
    painted = _sky(view, horizon)
    for depth, usual_width, reach, index in ((3.0, 0.55, 1.0, 0), (1.7, 1.3, 1.5, 1)):
        x, y = view.at(depth)
        width = usual_width * (0.7 + 0.6 * view.layout(1 + index))
        cell = (x / width).floor()
        height = hashed(cell, view.salt + index)
        roof = horizon - 0.15 - reach * height
        stands = view.inside(roof - y) * (hashed(cell, view.salt + 3 + index) < (1.0, 0.7)[index]).float()
        brick = 0.55 + 0.7 * view.texture(x, y, 0.6)
        colour = view.colour("hues", index) * ((0.45 + hashed(cell, view.salt + 9)) * brick)[:, :, None]
        pane, lit = _windows(view, x / width, y, 4, 5.0 / (1 + 0.3 * index))
        colour = colour * (1 - 0.65 * pane)[:, :, None]
        glow = lit[:, :, None] * rgb(view, 0.85, 0.6, 0.28) * 0.8
        painted = painted.over(stands, colour, 0.9 if index == 0 else 0.5, glow)
    painted = _ground(view, painted, horizon, view.colour("hues", 2) * 0.7)
    x, y = view.at(1.5)
    below = (y - horizon).clamp(min=0.02)
    lane = ((x / (below + 0.08)).abs() < 0.07) & (wrap(0.6 / below) < 0.5) & (y > horizon + 0.03)
    return painted.over(lane.float() * 0.8, rgb(view, 0.7, 0.7, 0.6), 0.4)


def _room(view: View) -> Painted:
    x, y = view.at(2)
    paper = (0.75 + 0.35 * view.texture(x, y, 0.4))[:, :, None]
    stripes = 1 - 0.25 * (view.layout(3) < 0.4) * (wrap(x * 3) < 0.5)
    wall = view.colour("hues", 0) * paper * stripes[:, :, None]
    painted = Painted(wall, torch.zeros_like(wall), torch.full_like(wall[:, :, :1], 0.45))
    period = 2.4 + view.layout(1)
    cell = (x / period + 0.5).floor()
    along = x - cell * period
    painted = _room_window(view, painted, along, y, hashed(cell, view.salt))
    picture = torch.maximum((along - 0.35 * period).abs() - 0.16, (y + 0.3).abs() - 0.2)
    art = view.texture(x, y, 0.7, "leaves")
    painted = painted.over(view.inside(picture) * (hashed(cell, view.salt + 1) < 0.7).float(), art, 0.45)
    floor = 0.42 + 0.2 * view.layout(2)
    painted = _ground(view, painted, floor - 0.12, view.colour("hues", 1))
    painted = painted.over(view.inside((y + 1.15).abs() - 0.25), view.colour("hues", 0) * 0.5 + 0.3, 0.4)
    seat = torch.maximum((along + 0.3 * period).abs() - 0.4, (y - floor - 0.02).abs() - 0.22)
    seat = torch.minimum(seat, torch.maximum((along + 0.3 * period).abs() - 0.34, (y - floor + 0.25).abs() - 0.2))
    return painted.over(view.inside(seat - 0.03), view.colour("hues", 2), 0.35)


def _room_window(view: View, painted: Painted, along: Tensor, y: Tensor, chance: Tensor) -> Painted:
    """A window that shows the time of day, and a lamp that burns when it is dark outside."""
    top, low = sky_colours(view)
    pane = torch.maximum(along.abs() - 0.34, (y + 0.3).abs() - 0.42)
    cross = torch.minimum(along.abs(), (y + 0.3).abs()) < 0.02
    outside = low + (top - low) * ((-y - 0.1).clamp(0, 1))[:, :, None]
    has = (chance < 0.85).float()
    painted = painted.over(view.inside(pane - 0.05) * has, rgb(view, 0.35, 0.28, 0.2), 0.45)
    painted = painted.over(view.inside(pane) * has * (~cross).float(), outside * 0, 0.45, outside * 1.1)
    burns = view.is_time(2) + 0.5 * view.is_time(1)
    lamp = torch.exp(-((along + 0.95).square() + (y + 0.05).square()) * 5) * burns * (chance > 0.3)
    return painted.add_glow(lamp[:, :, None] * rgb(view, 0.55, 0.34, 0.14) * 0.7)


def _corridor(view: View) -> Painted:
    x, y = view.at(1)
    y = y + 0.05
    wide, high = _level(view, 0.75, 1.5), _level(view, 0.75, 1.1, 1)
    across, up = x.abs() / wide, y.abs() / high
    size = torch.maximum(across, up).clamp(min=0.02)
    end = 0.1 + 0.12 * view.layout(2)
    along = torch.log(size.clamp(min=0.05)) * (1.6 + view.layout(3))
    is_wall = (across > up).float()
    grain = 0.6 + 0.6 * view.texture(torch.where(across > up, y / size, x / size), along, 0.35)
    wall = view.colour("hues", 0) * grain[:, :, None]
    door = ((wrap(along) < 0.42) & (up / size < 0.75) & (across > up)).float()
    wall = wall + door[:, :, None] * (view.colour("hues", 2) * 0.8 - wall)
    floor = view.colour("hues", 1) * (grain * (0.7 + 0.3 * (wrap(along * 3) < 0.5)))[:, :, None]
    ceiling = (0.35 + 0.4 * view.colour("hues", 0)) * grain[:, :, None]
    flat = torch.where((y > 0)[:, :, None], floor, ceiling)
    surface = flat + is_wall[:, :, None] * (wall - flat)
    fall = (0.25 + 0.75 * size.clamp(0, 1))[:, :, None]
    lamp = ((wrap(along) < 0.3) & (across / size < 0.22) & (y < 0) & (up > across)).float()
    burns = 0.3 + 0.5 * (view.is_time(1) + view.is_time(2))
    glow = (lamp * burns)[:, :, None] * rgb(view, 0.8, 0.72, 0.55) * fall
    distance = (0.25 / size).clamp(0.1, 1.2)[:, :, None]
    painted = Painted(surface * fall, glow, distance)
    top, low = sky_colours(view)
    painted = painted.over(view.inside(size - end), low * 0, 1.2, 0.25 * (top + low))
    return painted.over(
        view.inside(torch.maximum(across - 0.75 * end, up - 0.75 * end)), low * 0, 1.3, 1.2 * (0.5 * top + low)
    )


def _trunks(view: View, painted: Painted, *, depth: float, spacing: Tensor, thick: float, distance: float) -> Painted:
    x, y = view.at(depth)
    x = x + 0.03 * torch.sin(3 * y + view.salt)
    cell = (x / spacing).floor()
    middle = (cell + 0.25 + 0.5 * hashed(cell, view.salt + depth)) * spacing
    half = thick * (0.5 + hashed(cell, view.salt + 2 * depth))
    bark = 0.35 + 0.8 * view.texture(4 * x, y, 0.3)
    colour = (view.colour("hues", 1) * 0.5 + rgb(view, 0.06, 0.04, 0.025)) * bark[:, :, None]
    return painted.over(view.inside((x - middle).abs() - half), colour, distance)


def _forest(view: View) -> Painted:
    horizon = _level(view, 0.2, 0.5)
    painted = _sky(view, horizon)
    green = rgb(view, 0.1, 0.3, 0.06) * 0.7 + 0.35 * view.colour("hues", 0) * rgb(view, 0.5, 1, 0.4)
    x, y = view.at(6)
    leaf = view.texture(x, y, 0.5)
    painted = painted.over(
        view.inside(horizon - 0.75 - 0.9 * view.texture(x, y * 0, 0.3, "cloud") - y),
        green * (0.2 + leaf)[:, :, None],
        1.0,
    )
    painted = _trunks(view, painted, depth=4, spacing=0.3 + 0.15 * view.layout(1), thick=0.035, distance=0.8)
    painted = _ground(view, painted, horizon, green * 0.4 + rgb(view, 0.1, 0.07, 0.03))
    painted = _trunks(view, painted, depth=1.6, spacing=0.8 + 0.6 * view.layout(2), thick=0.11, distance=0.4)
    x, y = view.at(1.6)
    crown = view.texture(x, y, 0.3, "cloud") - 0.55 - 0.6 * (y + 0.75 - 0.4 * view.layout(3))
    leaf = view.texture(x, y, 0.9)
    return painted.over((crown * 12).clamp(0, 1), green * (0.25 + 1.1 * leaf)[:, :, None], 0.4)


def _water(view: View, painted: Painted, horizon: Tensor) -> Painted:
    x, y = view.at(4)
    below = (y - horizon).clamp(min=0.015)
    ripple = view.texture(x / (below * 1.5 + 0.2), 0.35 / (below + 0.08), 0.25)
    top, low = sky_colours(view)
    mirrored = (0.55 * low + 0.25 * top) * (0.35 + 1.1 * ripple)[:, :, None]
    glitter = (ripple > 0.68).float()[:, :, None] * low * 0.5
    return painted.over(view.inside(horizon - y), rgb(view, 0.02, 0.06, 0.09), 1.0, mirrored * 0.7 + glitter)


def _sea(view: View) -> Painted:
    horizon = _level(view, -0.25, 0.3)
    painted = _water(view, _sky(view, horizon), horizon)
    x, y = view.at(1.2)
    shore = 0.55 + 0.3 * view.layout(1) + 0.06 * torch.sin(2 * x + view.salt)
    sand = rgb(view, 0.5, 0.4, 0.26) * (0.5 + 0.8 * view.texture(x, 3 * y, 0.7))[:, :, None]
    painted = painted.over(view.inside(shore - 0.05 - y) * 0.7, rgb(view, 0.75, 0.8, 0.8), 0.3)
    return painted.over(view.inside(shore - y), sand * (0.6 + 0.6 * view.colour("hues", 0)), 0.3)


def _open_sky(view: View) -> Painted:
    painted = _sky(view, _level(view, 0.8, 1.3))
    x, y = view.at(30)
    puffs = (view.texture(x, 1.6 * y, 0.3, "cloud") - 0.5).clamp(0, 0.2) * 5
    _, low = sky_colours(view)
    lit = (0.55 * low + 0.45 * low.mean(dim=2, keepdim=True)) * (0.7 + 0.8 * view.texture(x, y, 0.4))[:, :, None]
    painted = painted.over(puffs * (0.4 + 0.6 * view.layout(1)), low * 0, 1.6, lit)
    x, y = view.at(8)
    ridge = 0.86 + 0.1 * view.layout(2) + 0.07 * torch.sin(2.5 * x + view.salt)
    return painted.over(view.inside(ridge - y), view.colour("hues", 0) * 0.35, 1.0)


def _hills(
    view: View, painted: Painted, level: Tensor, colour: Tensor, *, depth: float, swing: float, distance: float
) -> Painted:
    x, y = view.at(depth)
    ridge = level + swing * (torch.sin(1.7 * x + view.salt) + 0.5 * torch.sin(4.1 * x + 2 * view.salt + depth))
    grain = 0.5 + 0.9 * view.texture(2 * x, y * 1.5, 0.5)
    return painted.over(view.inside(ridge - y), colour * grain[:, :, None], distance)


def _field(view: View) -> Painted:
    horizon = _level(view, -0.1, 0.3)
    painted = _sky(view, horizon)
    green = rgb(view, 0.16, 0.26, 0.05) * 0.8 + 0.3 * view.colour("hues", 1) * rgb(view, 0.9, 1, 0.3)
    painted = _hills(
        view, painted, horizon - 0.05, green * 0.6 + rgb(view, 0.03, 0.06, 0.1), depth=6, swing=0.1, distance=1.0
    )
    x, y = view.at(4)
    spacing = 0.5 + 0.5 * view.layout(1)
    cell = (x / spacing).floor()
    middle = (cell + 0.5) * spacing
    big = 0.06 + 0.12 * hashed(cell, view.salt)
    tree = torch.hypot(x - middle, (y - horizon + big) * 0.8) - big
    has = (hashed(cell, view.salt + 5) < 0.6).float()
    crown = green * 0.4 * (0.5 + view.texture(x, y, 1.2))[:, :, None]
    painted = painted.over(view.inside(tree) * has, crown, 0.8)
    painted = _ground(view, painted, horizon, green)
    x, y = view.at(1.3)
    blades = view.texture(6 * x, y, 0.35)
    return painted.over(
        ((y - 0.62 + 0.35 * (0.5 - blades)) * 12).clamp(0, 1), green * (0.3 + 1.2 * blades)[:, :, None], 0.25
    )


def _texture(view: View) -> Painted:
    x, y = view.at(1)
    scale = 0.08 + 0.3 * view.layout(0)
    offset = view.salt
    found = view.sheet.leaves(x * scale + offset, y * scale + 0.7 * offset)
    soft = view.sheet.cloud(x * scale * 0.6 + offset, y * scale * 0.6)[:, :, None]
    albedo = found * (0.4 + 1.2 * soft) * (0.5 + view.colour("hues", 0))
    distance = 0.3 + 0.5 * soft
    return Painted(albedo, torch.zeros_like(albedo), distance)


def _title(view: View) -> Painted:
    x, y = view.at(1)
    bright = (view.layout(0) < 0.2).float()[:, :, None]
    soft = (0.9 + 0.2 * view.texture(x, y, 0.1, "cloud"))[:, :, None]
    ground = (0.02 + 0.7 * bright) * (0.5 + view.colour("hues", 0)) * soft
    return Painted(ground * 0, ground, torch.full_like(ground[:, :, :1], 0.2))


def _desert(view: View) -> Painted:
    horizon = _level(view, -0.1, 0.25)
    sand = rgb(view, 0.55, 0.36, 0.17) * (0.6 + 0.5 * view.colour("hues", 0))
    painted = _hills(view, _sky(view, horizon), horizon, sand * 0.8, depth=6, swing=0.08, distance=1.0)
    painted = _hills(view, painted, horizon + 0.2, sand, depth=3, swing=0.12, distance=0.6)
    return _hills(view, painted, horizon + 0.5, sand * 1.1, depth=1.4, swing=0.14, distance=0.3)


def _mountains(view: View) -> Painted:
    painted = _sky(view, _level(view, 0.1, 0.4))
    for depth, level, tall, distance in ((8.0, 0.15, 0.8, 1.1), (3.0, 0.5, 0.5, 0.7)):
        x, y = view.at(depth)
        peak = level - tall * (1 - (wrap(x * 0.7 + view.salt) * 2 - 1).abs()) * (0.5 + 0.5 * view.layout(0))
        peak = peak - 0.2 * (1 - (wrap(x * 1.9 + 2 * view.salt) * 2 - 1).abs())
        rock = (0.3 + 0.9 * view.texture(x, y, 0.5))[:, :, None]
        snow = ((level - 0.35 * tall - y) * 8 + 3 * view.texture(x, y, 0.6)).clamp(0, 1)[:, :, None]
        stone = view.colour("hues", 0) * 0.7 * rock
        painted = painted.over(
            view.inside(peak - y), stone + snow * (rgb(view, 0.8, 0.82, 0.85) * rock - stone), distance
        )
    return _ground(view, painted, _level(view, 0.5, 0.7, 1), view.colour("hues", 1) * 0.6)


def _bridge(view: View) -> Painted:
    horizon = _level(view, -0.05, 0.2)
    painted = _water(view, _sky(view, horizon), horizon)
    x, y = view.at(2.5)
    period = 1.8 + view.layout(1)
    along = wrap(x / period) * 2 - 1
    steel = view.colour("hues", 0) * 0.6 * (0.6 + 0.6 * view.texture(x, y, 0.8))[:, :, None]
    deck = horizon + 0.25
    cable = (y - (deck - 0.12 - 0.75 * along.square())).abs() - 0.015
    hangers = torch.maximum(
        (wrap(x * 9) - 0.5).abs() - 0.06, torch.maximum(deck - 0.12 - 0.75 * along.square() - y, y - deck)
    )
    tower = torch.maximum((1 - along.abs()) * period / 2 - 0.06, -0.72 - y)
    for part in (cable, hangers * 0.1, tower, (y - deck).abs() - 0.05):
        painted = painted.over(view.inside(part), steel, 0.6)
    return _ground(view, painted, horizon * 0 + 0.72, view.colour("hues", 2) * 0.6)


PAINTERS: dict[str, Callable[[View], Painted]] = {
    "room": _room,
    "corridor": _corridor,
    "street": _street,
    "forest": _forest,
    "sea": _sea,
    "sky": _open_sky,
    "field": _field,
    "texture": _texture,
    "title": _title,
    "desert": _desert,
    "mountains": _mountains,
    "bridge": _bridge,
}
