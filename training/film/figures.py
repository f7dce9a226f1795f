"""Subjects: people, faces, crowds, cars, fires and titles, painted over a place.

A subject has coordinates of its own: u to the right and v downwards, (0, 0) in its middle, 1 at half its height.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from training.film.noise import hashed, wrap
from training.film.view import Painted, View, rgb

NEAR = 0.22  # distance of the subject


def paint_subject(name: str, view: View, behind: Painted) -> Painted:
    """Paint a subject over what is behind it."""
    return PAINTERS[name](view, behind)


def _local(view: View, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """The subject's coordinates at every pixel; `shift` moves it to the right."""
    x, y = view.at(1)
    size = view.number("size")
    # What the camera follows travels with it.
    middle = view.number("subject_x") + view.path("travel") + view.number("velocity") * (view.moment - 0.5)
    return (x - middle) / size - shift, (y - view.number("subject_y")) / size


def _in_units(view: View, distance: Tensor) -> Tensor:
    """Mask of a signed distance in the subject's units."""
    return view.inside(distance * view.number("size"))


def _capsule(
    u: Tensor, v: Tensor, start: tuple[Tensor | float, float], end: tuple[Tensor | float, float], radius: float
) -> Tensor:
    """Signed distance to a line with round ends."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = (((u - start[0]) * du + (v - start[1]) * dv) / (du * du + dv * dv)).clamp(0, 1)
    return torch.hypot(u - start[0] - along * du, v - start[1] - along * dv) - radius


def _body(view: View, behind: Painted, shift: float, salt: float) -> Painted:
    """One person from head to foot, in stride when the subject moves."""
    u, v = _local(view, shift)
    strides = (view.number("velocity").abs() > 0).float() + (
        view.path("travel").abs().amax(dim=1, keepdim=True) > 0
    ).float()
    phase = view.salt + salt + 5 * (view.moment - 0.5) * (3 * strides)
    swing = 0.22 * torch.sin(phase) * strides.clamp(max=1)
    bend = 0.12 * (view.number("tension") - 0.3)
    cloth = view.colour("cloth") if salt == 0 else view.colour("hues", 2) * 0.5 + 0.5 * view.colour("cloth").flip(2)
    shade = (0.75 + 0.5 * ((u * torch.cos(view.number("light_angle"))).clamp(-0.4, 0.4)))[:, :, None]
    legs = torch.minimum(
        _capsule(u, v, (-0.06, 0.0), (-0.1 + swing, 0.93), 0.075),
        _capsule(u, v, (0.06, 0.0), (0.1 - swing, 0.93), 0.075),
    )
    arms = torch.minimum(
        _capsule(u, v, (-0.17, -0.52), (-0.24 - swing, 0.02), 0.05),
        _capsule(u, v, (0.17, -0.52), (0.24 + swing, 0.02), 0.05),
    )
    trunk = _capsule(u, v, (bend, -0.48), (0.0, -0.08), 0.17)
    head = torch.hypot((u - bend * 1.5) * 1.15, v + 0.83) - 0.135
    hair = torch.maximum(head - 0.012, v + 0.86)
    painted = behind.over(_in_units(view, legs), cloth.flip(2) * 0.4 * shade, NEAR)
    painted = painted.over(_in_units(view, torch.minimum(arms, trunk)), cloth * shade, NEAR)
    painted = painted.over(_in_units(view, head), view.colour("skin") * shade, NEAR)
    return painted.over(_in_units(view, hair), view.colour("hues", 1) * 0.25, NEAR)


def _person(view: View, behind: Painted) -> Painted:
    return _body(view, behind, 0.0, 0.0)


def _two(view: View, behind: Painted) -> Painted:
    apart = 0.42
    return _body(view, _body(view, behind, -apart, 1.7), apart, 0.0)


def _face(view: View, behind: Painted) -> Painted:
    """A head and shoulders; brows, eyes and mouth tell of the tension."""
    u, v = _local(view)
    tension = view.number("tension")
    hard = view.number("hard")
    lit = torch.cos(view.number("light_angle")) * u + torch.sin(view.number("light_angle")) * v
    edge = 0.5 + 0.5 * torch.tanh(lit * (1.5 + 10 * hard))
    shade = (1 - (0.3 + 0.6 * hard) * (1 - edge))[:, :, None]
    skin = view.colour("skin") * shade
    shoulders = torch.hypot(u / 1.15, (v - 1.35) / 0.62) - 1
    neck = torch.maximum(u.abs() - 0.26, (v - 0.75).abs() - 0.4)
    head = torch.hypot(u / 0.62, v / 0.85) - 1
    hair = torch.hypot(u / 0.72, (v + 0.12) / 0.9) - 1
    dark = view.colour("hues", 1) * 0.3
    painted = behind.over(_in_units(view, hair * 0.6), dark * shade, NEAR)
    painted = painted.over(_in_units(view, neck), skin * 0.8, NEAR)
    painted = painted.over(_in_units(view, shoulders * 0.6), view.colour("cloth") * shade, NEAR)
    painted = painted.over(_in_units(view, head * 0.6), skin, NEAR)
    painted = painted.over(
        _in_units(view, torch.maximum(head * 0.6, v + 0.52 + 0.12 * torch.cos(4 * u))), dark * shade, NEAR
    )
    side = u.abs()
    open_eye = 0.045 + 0.065 * tension
    eye = torch.hypot((side - 0.24) / 0.13, (v + 0.12) / open_eye) - 1
    pupil = torch.hypot(side - 0.24, v + 0.12) - 0.05
    painted = painted.over(_in_units(view, eye * open_eye), rgb(view, 0.75, 0.73, 0.7) * shade, NEAR)
    painted = painted.over(_in_units(view, torch.maximum(eye * open_eye, pupil)), rgb(view, 0.03, 0.02, 0.02), NEAR)
    # Worried brows rise towards the middle and come closer to the eyes outside.
    brow = (v + 0.3 - (side - 0.24) * (0.9 * tension - 0.2)).abs() - 0.028
    painted = painted.over(_in_units(view, torch.maximum(brow, (side - 0.24).abs() - 0.15)), dark * 0.7, NEAR)
    nose = _capsule(u, v, (0.0, -0.05), (0.03, 0.2), 0.03)
    painted = painted.over(_in_units(view, nose) * 0.5, skin * 0.6, NEAR)
    smile = (0.35 - 0.9 * tension) * u.square() * 4
    gap = 0.02 + 0.13 * (tension - 0.45).clamp(min=0)
    mouth = torch.maximum((v - 0.45 + smile * 0.3).abs() - gap, side - 0.2 + 0.06 * tension)
    return painted.over(_in_units(view, mouth), rgb(view, 0.25, 0.06, 0.05) * shade, NEAR)


def _crowd(view: View, behind: Painted) -> Painted:
    """Rows of heads and shoulders without end, the nearest row the largest."""
    x, y = view.at(1)
    painted = behind
    for row, (level, scale) in enumerate(((0.15, 0.55), (0.4, 0.75), (0.75, 1.0))):
        size = view.number("size") * scale
        width = size * 0.85
        cell = (x / width + 0.5 * row).floor()
        u = (x - (cell + 0.5 - 0.5 * row) * width) / size
        jump = hashed(cell, view.salt + row) - 0.5
        v = (y - level + 0.25 * size * jump) / size
        head = torch.hypot(u - 0.1 * jump, v + 0.25) - 0.17
        trunk = torch.hypot(u / 0.38, (v - 0.6) / 0.68) - 1
        trunk = torch.minimum(trunk * 0.38, torch.maximum(u.abs() - 0.38, 0.6 - v))
        tone = (0.35 + 0.9 * hashed(cell, view.salt + 7 + row))[:, :, None]
        mixed = hashed(cell, view.salt + 3 * row)[:, :, None]
        cloth = (view.colour("cloth") * mixed + view.colour("hues", 2) * (1 - mixed)) * tone
        painted = painted.over(view.inside(trunk * size), cloth, NEAR + 0.1 * (2 - row))
        painted = painted.over(
            view.inside(head * size), view.colour("skin") * (0.6 + 0.5 * tone), NEAR + 0.1 * (2 - row)
        )
    return painted


def _car(view: View, behind: Painted) -> Painted:
    u, v = _local(view)
    u, v = u * 0.75, v * 0.75 - 0.1
    body = torch.maximum(u.abs() - 1.35, (v - 0.15).abs() - 0.25) - 0.08
    cabin = torch.maximum(u.abs() + 0.5 * v - 0.5, (v + 0.3).abs() - 0.24) - 0.05
    glass = torch.maximum(torch.maximum(u.abs() + 0.5 * v - 0.45, (v + 0.28).abs() - 0.17), 0.03 - u.abs())
    wheel = torch.hypot(u.abs() - 0.85, v - 0.45) - 0.24
    hub = torch.hypot(u.abs() - 0.85, v - 0.45) - 0.1
    shine = (0.9 - 0.5 * v)[:, :, None]
    painted = behind.over(_in_units(view, torch.minimum(body, cabin)), view.colour("cloth") * shine, NEAR)
    painted = painted.over(_in_units(view, glass), rgb(view, 0.05, 0.08, 0.1), NEAR)
    painted = painted.over(_in_units(view, wheel), rgb(view, 0.015, 0.015, 0.015), NEAR)
    painted = painted.over(_in_units(view, hub), rgb(view, 0.4, 0.4, 0.42), NEAR)
    burns = view.is_time(2) + 0.5 * view.is_time(1)
    front = torch.exp(-((u - 1.42).square() + (v - 0.1).square()) * 60) * 1.5
    beam = (
        torch.exp(-((v - 0.12).abs() * 6 / (0.2 + (u - 1.4).clamp(min=0))) - (u - 1.4).clamp(min=0)) * (u > 1.4) * 0.35
    )
    back = torch.exp(-((u + 1.42).square() + (v - 0.1).square()) * 90)
    light = ((front + beam) * burns)[:, :, None] * rgb(view, 1.0, 0.9, 0.7) + (back * burns)[:, :, None] * rgb(
        view, 0.9, 0.05, 0.03
    )
    return painted.add_glow(light)


def _fire(view: View, behind: Painted) -> Painted:
    """Flames that are never the same twice, and their light on everything around."""
    u, v = _local(view)
    x, y = view.at(1)
    rising = y + 3.7 * view.moment
    tongues = view.texture(x / view.number("size"), rising / view.number("size") * 0.6, 0.5, "cloud")
    inside = 0.75 - 1.1 * u.abs() / (0.9 - 0.5 * v.clamp(-1, 1)) - 0.45 * (-v).clamp(min=0) - 3 * (v - 0.9).clamp(min=0)
    heat = (inside + 1.3 * (tongues - 0.45)).clamp(0, 1)
    flame = (heat * 5).clamp(0, 1)
    hot = (heat * 1.6).clamp(0, 1)[:, :, None]
    colour = rgb(view, 1.0, 0.22, 0.02) + hot * (rgb(view, 1.3, 0.95, 0.35) - rgb(view, 1.0, 0.22, 0.02))
    painted = behind.over(flame, rgb(view, 0.05, 0.02, 0.01), NEAR, colour * 1.2)
    around = torch.exp(-(u.square() + v.square()) * 0.45)[:, :, None]
    return painted.add_glow(around * rgb(view, 0.5, 0.17, 0.03) * (0.15 + 0.8 * painted.albedo))


def _words(view: View, behind: Painted) -> Painted:
    """Lines of letters: blocks with gaps, as print looks from afar."""
    x, y = view.at(1)
    size = view.number("size") * 0.45
    u, v = (x - 0.3 * view.number("subject_x")) / size, (y + 0.1 - 0.2 * view.layout(3)) / size
    lines = 1 + (3 * view.layout(1)).floor()
    line = (v / 1.5 + lines / 2).floor()
    within = (v / 1.5 + lines / 2) - line
    letter = (u / 0.62).floor()
    across = wrap(u / 0.62)
    half = 3 + 7 * hashed(line, view.salt + 2)
    printed = (
        (line >= 0) & (line < lines) & (letter.abs() < half) & (hashed(letter + 31 * line, view.salt) > 0.16)
    ).float()
    solid = ((across > 0.15) & (across < 0.85) & (within > 0.2) & (within < 0.8)).float()
    shape = hashed(letter + 17 * line, view.salt + 5)
    hole = ((across - 0.25 - 0.5 * shape).abs() < 0.13) & ((within - 0.3 - 0.4 * hashed(letter, shape)).abs() < 0.14)
    ink = printed * solid * (~hole).float()
    light = (view.layout(0) < 0.2).float()[:, :, None]
    colour = (1 - 0.95 * light) * (0.55 + 0.45 * view.colour("cloth"))
    return behind.over(ink, colour * 0, 0.2, colour)


PAINTERS: dict[str, Callable[[View, Painted], Painted]] = {
    "nobody": lambda _view, behind: behind,
    "person": _person,
    "two": _two,
    "face": _face,
    "crowd": _crowd,
    "car": _car,
    "fire": _fire,
    "title": _words,
}
