"""Draw what `python -m benchmarks.gpu --out` wrote: `python -m benchmarks.charts`. SVG files beside the figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.figure
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results"
OURS, OTHERS = "#2a6f97", "#adb5bd"


def draw_ways(seconds: Mapping[str, float], picture: Path) -> None:
    """Shots a second by each way of asking, the limit as a line.

    Args:
        seconds: of a shot, by way; "limit" is one of them.
        picture: SVG file to write.
    """
    ways = {name: 1 / each for name, each in seconds.items() if name != "limit"}
    figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
    colours = [OURS if name.startswith("ours") else OTHERS for name in ways]
    bars = axes.barh(list(ways), list(ways.values()), color=colours)
    # Inside: the limit's line is near the longest.
    for label, name in zip(axes.bar_label(bars, fmt="%.2g", padding=-28), ways, strict=True):
        label.set_color("white" if name.startswith("ours") else "black")
    limit = 1 / seconds["limit"]
    axes.axvline(limit, color="black", linestyle=":")
    axes.annotate(f"limit {limit:.0f}", (limit, 0), textcoords="offset points", xytext=(4, 0))
    axes.set(xscale="log", xlim=(0.05, 4 * limit), xlabel="shots a second")
    axes.invert_yaxis()
    _save(figure, picture)


def draw_stages(parts: Mapping[str, Mapping[str, float]], picture: Path) -> None:
    """Milliseconds a shot of each stage.

    Args:
        parts: by where a stage runs, and its name.
        picture: SVG file to write.
    """
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    for (where, times), colour in zip(parts.items(), (OTHERS, OURS), strict=True):
        bars = axes.barh(list(times), list(times.values()), color=colour, label=where)
        axes.bar_label(bars, fmt="%.2f", padding=3)
    longest = max(max(times.values()) for times in parts.values())
    axes.set(xlabel="milliseconds a shot", xlim=(0, 1.15 * longest))
    axes.invert_yaxis()
    axes.legend(loc="lower right")
    _save(figure, picture)


def draw_growth(curves: Mapping[str, Mapping[str, float]], picture: Path) -> None:
    """Milliseconds a shot over each thing that grows.

    Args:
        curves: by what grows: its value to milliseconds.
        picture: SVG file to write.
    """
    figure, grid = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for axes, (name, curve) in zip(grid.flat, curves.items(), strict=True):
        _draw_curve(axes, name, curve)
    _save(figure, picture)


def _draw_curve(axes: Axes, name: str, curve: Mapping[str, float]) -> None:
    values = [int(value) for value in curve]
    axes.plot(values, list(curve.values()), "o-", color=OURS)
    doubling = values[-1] >= 16 * values[0]
    axes.set(xlabel=name, ylabel="ms a shot", xscale="log" if doubling else "linear")
    axes.set_xticks(values, [str(value) for value in values], minor=False)
    axes.minorticks_off()
    axes.set_ylim(0, 1.08 * max(curve.values()))
    axes.grid(alpha=0.3)


def _save(figure: mpl.figure.Figure, picture: Path) -> None:
    figure.savefig(picture, metadata={"Date": None})
    plt.close(figure)


def draw_replicas(rows: Sequence[Mapping[str, Any]], picture: Path) -> None:
    """Shots a second over GPUs.

    Args:
        rows: `benchmarks.replicas.Row`, as JSON has them.
        picture: SVG file to write.
    """
    figure, axes = plt.subplots(figsize=(9, 2.2), layout="constrained")
    names = [f"{row['gpus']} GPU{'s' if row['gpus'] > 1 else ''}, {row['placement']}" for row in rows]
    colours = [OURS if row["placement"] == "replicate" else OTHERS for row in rows]
    bars = axes.barh(names, [row["rate"] for row in rows], color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set(xlabel="shots a second over HTTP", xlim=(0, 1.15 * max(row["rate"] for row in rows)))
    axes.invert_yaxis()
    _save(figure, picture)


def main(folder: Path = RESULTS) -> None:
    """Draw all four."""
    mpl.rcParams["svg.hashsalt"] = "qwen-shots"  # the same picture for the same figures
    figures = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))
    draw_ways(figures["ways"], folder / "ways.svg")
    draw_stages(figures["stages"], folder / "stages.svg")
    draw_replicas(json.loads((folder / "replicas.json").read_text(encoding="utf-8")), folder / "replicas.svg")
    draw_growth(json.loads((folder / "growth.json").read_text(encoding="utf-8")), folder / "growth.svg")


if __name__ == "__main__":
    mpl.use("svg")
    main()
