"""Scores over the film's time as SVG paths: a step a shot, and in long films a smooth curve over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qwen_shots.client.store import ShotRecord

# The drawing's own units; the page stretches it.
WIDTH, HEIGHT = 1000, 100

# With fewer shots than this, steps alone are read easily.
SMOOTH_SHOTS = 120
SMOOTH_POINTS = 240
# Standard deviation of the Gaussian window: of two hours, a minute.
SMOOTH_SHARE = 1 / 120
# Where the window holds less shot time than this share of itself, there is nothing to draw.
SMOOTH_LEAST = 0.05


@dataclass(frozen=True, slots=True)
class Step:
    """A shot's value; all within 0..1, times as shares of the film's length."""

    start: float
    end: float
    value: float


def steps_of(shots: Iterable[ShotRecord], name: str, film_seconds: float) -> list[Step]:
    """An attribute over the film. Shots without it leave a gap: nothing is made up."""
    length = max(film_seconds, 1e-9)
    return [
        Step(min(1.0, shot.start / length), min(1.0, shot.end / length), shot.scores[name])
        for shot in shots
        if name in shot.scores
    ]


def line_path(steps: Sequence[Step]) -> str:
    """The steps as a line, broken where there is a gap."""
    return "".join(_line(run) for run in _runs(steps))


def area_path(steps: Sequence[Step]) -> str:
    """What lies under the steps."""
    return "".join(f"{_line(run)}V{HEIGHT}H{_x(run[0].start)}Z" for run in _runs(steps))


def smooth_path(steps: Sequence[Step]) -> str:
    """A Gaussian mean over time, each shot weighted by its length; empty for few shots."""
    if len(steps) < SMOOTH_SHOTS:
        return ""
    starts, ends, values = (np.array([getattr(step, name) for step in steps]) for name in ("start", "end", "value"))
    middles, lengths = (starts + ends) / 2, ends - starts
    points = np.linspace(0, 1, SMOOTH_POINTS)
    weights = np.exp(-0.5 * ((points[:, None] - middles) / SMOOTH_SHARE) ** 2) * lengths
    total = weights.sum(axis=1)
    # A window full of shots weighs sqrt(2 pi) standard deviations.
    drawn = total > SMOOTH_LEAST * np.sqrt(2 * np.pi) * SMOOTH_SHARE
    path, pen = [], "M"
    for point, weight, value, draw in zip(points, total, weights @ values, drawn, strict=True):
        if draw:
            path.append(f"{pen}{_x(point)} {_y(value / weight)}")
        pen = "L" if draw else "M"
    return "".join(path)


def _runs(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Steps that touch."""
    run: list[Step] = []
    for step in steps:
        if run and step.start - run[-1].end > 1e-6:
            yield run
            run = []
        run.append(step)
    if run:
        yield run


def _line(run: Sequence[Step]) -> str:
    corners = "".join(f"H{_x(other.start)}V{_y(other.value)}" for _, other in pairwise(run))
    return f"M{_x(run[0].start)} {_y(run[0].value)}{corners}H{_x(run[-1].end)}"


def _x(share: float) -> str:
    return f"{share * WIDTH:.2f}".rstrip("0").rstrip(".")


def _y(value: float) -> str:
    return f"{(1 - value) * HEIGHT:.1f}".rstrip("0").rstrip(".")
