"""Times several ways of doing one thing in turn, so that whatever else the machine does falls on all of them.

What counts is the CPU time of this process, so that waiting for others is left out. It is the time that passes only
where one thread does the work, so the benchmarks set torch to one.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CPU_FILE = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Timing:
    """What one way cost.

    Attributes:
        seconds: CPU time of each round.
        ratios: the baseline's time in the same round divided by this way's: 2.0 is twice as fast.
    """

    seconds: tuple[float, ...]
    ratios: tuple[float, ...]


def time_in_turn(ways: Mapping[str, Callable[[], object]], *, rounds: int, warm_ups: int = 1) -> dict[str, Timing]:
    """Run every way once a round, each round beginning with another one.

    Args:
        ways: name to what is timed; the first one is the baseline.
        rounds: how often each is timed.
        warm_ups: rounds before that, which are not counted.
    """
    names = list(ways)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_ups, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            began = time.process_time()
            ways[name]()
            if number >= 0:
                seconds[name].append(time.process_time() - began)
    baseline = seconds[names[0]]
    return {
        name: Timing(tuple(own), tuple(base / mine for base, mine in zip(baseline, own, strict=True)))
        for name, own in seconds.items()
    }


def table(timings: Mapping[str, Timing], *, milliseconds: bool = False) -> str:
    """A Markdown table: median and range of the time, and of the ratio to the first row."""
    unit, scale, form = ("ms", 1000, ".1f") if milliseconds else ("seconds", 1, ".3f")
    lines = [f"| way | CPU {unit} a shot: median (range) | times as fast: median (range) |", "|---|---|---|"]
    for name, timing in timings.items():
        lines.append(
            f"| {name} | {_spread([scale * each for each in timing.seconds], form)} | {_spread(timing.ratios, '.1f')} |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def machine() -> str:
    """The CPU, its cores, how busy it is, and the versions that count."""
    import torch
    import transformers

    return (
        f"{_cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {load()}; Python "
        f"{platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    )


def load() -> str:
    """Processes that wanted to run, mean over the last minute."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _cpu_name() -> str:
    if CPU_FILE.exists():
        for line in CPU_FILE.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
