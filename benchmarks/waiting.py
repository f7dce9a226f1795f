"""What it costs that torch's threads spin while they wait, on a quiet and a busy CPU: `python -m benchmarks.waiting`.

One shot with the bundled checkpoint, all its questions and the caption, on as many threads as torch takes. How threads
wait is settled when torch is loaded, so each way is a process of its own; the ways take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks import rounds

# The first row is the baseline.
WAYS = {"spinning (libgomp's own way)": "", "asleep (model_loader.py)": "PASSIVE"}


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.waiting", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="processes for each way and neighbour")
    parser.add_argument("--shots", type=int, default=5, help="shots in each process")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 4], help="busy processes beside it")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(*_time_here(options.shots))
        return 0
    print(rounds.machine() + "\n")
    print("| busy processes beside it | threads wait | seconds a shot: median | CPU seconds a shot | times as fast |")
    print("|---|---|---|---|---|")
    for busy in options.busy:
        with _neighbours(busy):
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
            for _ in range(options.rounds):
                for name, policy in WAYS.items():
                    found[name].append(_time_there(policy, options.shots))
        baseline = None
        for name, each in found.items():
            wall, cpu = (statistics.median(values) for values in zip(*each, strict=True))
            baseline = baseline or wall
            print(f"| {busy} | {name} | {wall:.2f} | {cpu:.2f} | {baseline / wall:.1f} |")
    return 0


@contextmanager
def _neighbours(count: int) -> Iterator[None]:
    """That many processes which want a core each; they end with this one, whatever ends it."""
    code = "import os; ours = os.getppid()\nwhile os.getppid() == ours: pass"
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _time_there(policy: str, shots: int) -> tuple[float, float]:
    """Seconds and CPU seconds of a shot in a process whose threads wait that way."""
    command = [sys.executable, "-m", "benchmarks.waiting", "--one", "--shots", str(shots)]
    environ = os.environ | {"OMP_WAIT_POLICY": policy}
    said = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True).stdout
    wall, cpu = (float(word) for word in said.split())
    return wall, cpu


def _time_here(shots: int) -> tuple[float, float]:
    from benchmarks.cpu import set_stage
    from tests.helpers import BUNDLED

    stage = set_stage(BUNDLED)
    stage.captioning.look([stage.shot])
    began, worked = time.perf_counter(), time.process_time()
    for _ in range(shots):
        stage.captioning.look([stage.shot])
    return (time.perf_counter() - began) / shots, (time.process_time() - worked) / shots


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
