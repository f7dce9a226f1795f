"""How fast the client goes through a film when the server costs nothing: `python -m benchmarks.client --hours 2`.

Ours: one run over the whole film, in a process of its own. The naive way, in `naive`: one thing after another, the film
opened anew for each shot. It is timed on the film's beginning for the cuts, and on shots spread over the film for the
rest. The figures are film seconds a second, and what a second of film costs the processor.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import naive
from benchmarks.long_film import make_film
from qwen_shots.client.store import ShotRecord, open_store
from tests.helpers import KEY
from tests.qwen_shots.client.answering import AnsweringServer

SHORT_HOURS = 0.1
NAIVE_SHOTS = 16
CUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a part of a film cost.

    Attributes:
        film: how much of the film, in seconds.
        clock: seconds by the clock.
        cpu: seconds of all cores together, of child processes too.
        memory: most MiB at a time; 0 where it was not looked at.
    """

    film: float
    clock: float
    cpu: float
    memory: float = 0.0


def run_ours(film: Path, folder: Path, url: str) -> Cost:
    """`qwen-shots analyze` as a user starts it, with its start."""
    command = [sys.executable, "-m", "qwen_shots.client.cli.main", "analyze", str(film), "--server", url]
    began = time.perf_counter()
    ours = subprocess.Popen([*command, "--key", KEY, "--out", str(folder)])
    _, status, usage = os.wait4(ours.pid, 0)  # the usage of this child alone
    clock = time.perf_counter() - began
    ours.returncode = os.waitstatus_to_exitcode(status)
    assert ours.returncode == 0
    with open_store(folder) as store:
        assert all(shot.analysed for shot in store.shots())
        return Cost(store.film.duration, clock, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def run_naive(film: Path, shots: Sequence[ShotRecord], url: str, heard: naive.Heard) -> Cost:
    """The cuts of the film's beginning, and some shots, both scaled to a second of film."""
    length = min(CUT_SECONDS, shots[-1].end)
    cutting = _timed(lambda: naive.cut(film, length), length)
    naive.analyze_all(film, shots[:1], url, KEY, heard)  # librosa compiles
    looked_at = sum(shot.duration for shot in shots)
    looking = _timed(lambda: naive.analyze_all(film, shots, url, KEY, heard), looked_at)
    return Cost(1.0, cutting.clock + looking.clock, cutting.cpu + looking.cpu)


def _timed(work: Callable[[], object], length: float) -> Cost:
    """What a second of film costs, of so many."""
    began, cpu = time.perf_counter(), _cpu()
    work()
    return Cost(1.0, (time.perf_counter() - began) / length, (_cpu() - cpu) / length)


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def spread(shots: Sequence[ShotRecord], count: int) -> list[ShotRecord]:
    """So many shots, evenly over the film."""
    step = max(1, len(shots) // count)
    return list(shots[step // 2 :: step][:count])


def table(costs: dict[str, Cost]) -> str:
    """All ways against the first, by the clock and by the work done."""
    lines = ["| way | times real time | times as fast | CPU ms a film second | times less |", "|---|---|---|---|---|"]
    first = next(iter(costs.values()))
    for name, cost in costs.items():
        speed, work = cost.film / cost.clock, cost.cpu / cost.film * 1000
        faster, less = speed * first.clock / first.film, first.cpu / first.film * 1000 / work
        lines.append(f"| {name} | {speed:.1f} | {faster:.1f} | {work:.1f} | {less:.1f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client", description=__doc__)
    parser.add_argument("--hours", type=float, default=SHORT_HOURS, help="how long the film is")
    parser.add_argument("--film", type=Path, help="a film that is there already")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name, AnsweringServer() as server:
        folder = Path(name)
        film = options.film or make_film(folder, options.hours)
        print(f"load at the start: {os.getloadavg()[0]:.1f}, on {len(os.sched_getaffinity(0))} cores", flush=True)
        ours = run_ours(film, folder / "out", server.url)
        with open_store(folder / "out") as store:
            shots = store.shots()
        some = spread(shots, NAIVE_SHOTS)
        costs = {
            "naive: librosa opens the film for each segment": run_naive(film, some, server.url, naive.sound),
            "naive, with ffmpeg to seek the segment": run_naive(film, some, server.url, naive.sought_sound),
            "ours": ours,
        }
        print(f"load at the end: {os.getloadavg()[0]:.1f}\n")
        print(f"{ours.film / 3600:.2f} h, {len(shots)} shots: ours took {ours.clock:.0f} s and {ours.memory:.0f} MiB\n")
        print(table(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
