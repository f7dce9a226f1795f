"""`python -m benchmarks.stress`: every bar with its figure. Exit code 1 where one is missed.

The server is the real one; where its model does not matter, its engine is a real process that takes a known time.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import rounds
from benchmarks.stress import (
    bodies,
    chunks,
    crowds,
    faults,
    floods,
    json_texts,
    large_batches,
    malformed,
    openapi,
    overload,
    pictures,
    requests,
    signals,
)
from benchmarks.stress.bars import Bar, table

JSON_FOLDER = "test_parsing"  # the name that nst/JSONTestSuite gives it


def parts(corpora: Path | None) -> dict[str, Callable[[], list[Bar]]]:
    """Name to what is played."""
    named = [folder for folder in sorted(corpora.iterdir()) if folder.is_dir()] if corpora else []
    suites = [folder for each in named for folder in [each, *each.rglob(JSON_FOLDER)] if folder.name == JSON_FOLDER]
    of_pictures = [folder for folder in named if not any(suite.is_relative_to(folder) for suite in suites)]
    return {
        "malformed": lambda: malformed.check(10_000),
        "openapi": lambda: openapi.check(5_000),
        "json": lambda: json_texts.check(suites),
        "pictures": lambda: pictures.check(of_pictures),
        "requests": lambda: requests.check(10_000),
        "bodies": bodies.check,
        "chunks": lambda: chunks.check((8, 32), seconds=20),
        "large batches": large_batches.check,
        "floods": floods.check,
        "signals": lambda: signals.check(20),
        "overload": lambda: overload.check(300),
        "slow": lambda: crowds.check_slow(500, requests=400, rounds=3),
        "leavers": lambda: crowds.check_leavers(200),
        "faults": lambda: faults.check([0, 1, 2]),
    }


def main(arguments: Sequence[str]) -> int:
    """Play and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.stress", description=__doc__)
    parser.add_argument("--corpora", type=Path, help="a folder of folders with pictures, or with JSONTestSuite")
    parser.add_argument("--only", nargs="+", choices=parts(None), help="play these alone")
    asked = parser.parse_args(arguments)
    print(f"{rounds.machine()}, load {os.getloadavg()[0]:.1f} at the start\n")
    bars: list[Bar] = []
    for name, play in parts(asked.corpora).items():
        if asked.only and name not in asked.only:
            continue
        began = time.monotonic()
        try:
            some = play()
        except Exception as error:  # the other parts are played all the same
            some = [Bar(name, "it can be played", f"{type(error).__name__}: {error}", held=False)]
        bars += some
        print(f"{name}: {time.monotonic() - began:.0f} s\n{table(some)}\n", flush=True)
    missed = [bar for bar in bars if not bar.held]
    print(f"{len(bars) - len(missed)} of {len(bars)} bars held; load {os.getloadavg()[0]:.1f} at the end")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
