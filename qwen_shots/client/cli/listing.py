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


def print_shots(shots: Sequence[ShotRecord], name: str, values: Mapping[int, float | None], highest: float = 1) -> None:
    """Print shots in the order given.

    Args:
        shots: what to print.
        name: of the value by which they were picked.
        values: shot number to that value.
        highest: what a full bar means.
    """
    if not sys.stdout.isatty():
        sys.stdout.write(to_tsv(shots))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("shot", "at", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column(name, no_wrap=True)
    table.add_column("sound", no_wrap=True)
    table.add_column("caption")
    for shot in shots:
        value = values[shot.number]
        table.add_row(
            str(shot.number),
            at(shot.start),
            f"{shot.duration:.1f}",
            "" if value is None else f"{value:.4f} {bar(value / highest if highest else 0)}",
            shot.audio_class or "",
            Text(one_line(shot.caption or "")),
        )
    Console().print(table)


def at(seconds: float) -> str:
    """A moment as `--until` takes it: `0:01:02.5`."""
    minutes, rest = divmod(round(seconds * 10), 600)
    return f"{minutes // 60}:{minutes % 60:02}:{rest / 10:04.1f}"


def bar(share: float) -> str:
    """0..1 as a bar."""
    return "█" * round(BAR_CELLS * min(1.0, max(0.0, share)))
