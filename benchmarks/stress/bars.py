"""What must hold, and what was seen."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing that must hold.

    Attributes:
        item: what was done.
        limit: what must hold, in words.
        seen: the figure.
        held: whether it holds.
    """

    item: str
    limit: str
    seen: str
    held: bool


def at_most(item: str, figure: float, limit: float, unit: str) -> Bar:
    """A figure that may not exceed its limit."""
    return Bar(item, f"at most {limit:g} {unit}", f"{figure:.4g} {unit}", figure <= limit)


def none_of(item: str, what: str, found: Sequence[object]) -> Bar:
    """Something of which there may be none; the first ones are shown."""
    seen = "none" if not found else f"{len(found)}: " + "; ".join(map(str, found[:3]))
    return Bar(item, f"no {what}", seen, not found)


def growth_percent(before: float, after: float) -> float:
    """By how much something grew."""
    return 100 * (after / before - 1)


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which so many percent lie; NaN, which holds no bar, where there is none."""
    if len(values) < 2:
        return values[0] if values else math.nan
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def table(bars: Sequence[Bar]) -> str:
    """A Markdown table."""
    rows = [f"| {bar.item} | {bar.limit} | {bar.seen} | {'held' if bar.held else 'MISSED'} |" for bar in bars]
    return "\n".join(["| what | bar | seen | |", "|---|---|---|---|", *rows])
