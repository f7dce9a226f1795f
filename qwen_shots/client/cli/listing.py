"""Shots as a table: for people on a terminal, and tab-separated with every column for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen_shots.client.exports.tables import to_tsv
from qwen_shots.client.exports.text import one_line
from qwen_shots.client.store import ShotRecord

BAR_CELLS = 10
# Columns of a terminal; on a narrower one a number and a caption matter more than bars.
WIDE = 70


def print_shots(
    shots: Sequence[ShotRecord],
    film: Sequence[ShotRecord],
    name: str,
    values: Mapping[int, float | None],
    highest: float = 1,
    *,
    model: str | None = None,
) -> None:
    """Print shots in the order given.

    Args:
        shots: what to print.
        film: all shots of the film, whose attributes are the columns for programs.
        name: of the value by which they were picked.
        values: shot number to that value.
        highest: what a full bar means.
        model: which model answered, for programs.
    """
    if not sys.stdout.isatty():
        sys.stdout.write(to_tsv(shots, film, model))
        return
    console = Console()
    wide = console.width >= WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("shot", justify="right", no_wrap=True)
    table.add_column("at", justify="right", no_wrap=True)
    if wide:
        table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column(name, no_wrap=wide)
    if wide:
        table.add_column("sound", no_wrap=True)
    table.add_column("caption")
    for shot in shots:
        value = values[shot.number]
        cell = "" if value is None else f"{value:.4f}"
        if wide and value is not None:
            cell += f" {bar(value / highest if highest else 0)}"
        seconds, sound = ([f"{shot.duration:.1f}"], [Text(one_line(shot.audio_class or ""))]) if wide else ([], [])
        table.add_row(str(shot.number), at(shot.start), *seconds, cell, *sound, Text(one_line(shot.caption or "")))
    console.print(table)


def at(seconds: float) -> str:
    """A moment as `--until` takes it: `0:01:02.5`."""
    minutes, rest = divmod(round(seconds * 10), 600)
    return f"{minutes // 60}:{minutes % 60:02}:{rest / 10:04.1f}"


def bar(share: float) -> str:
    """0..1 as a bar, of what the terminal's encoding has."""
    cell = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    return cell * round(BAR_CELLS * min(1.0, max(0.0, share)))
