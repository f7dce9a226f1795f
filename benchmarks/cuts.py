"""How well each detector cuts films whose cuts are known: `python -m benchmarks.cuts`; the table is in docs/cuts.md.

A border is found where one lies within a picture of it, or within half of a gradual change; each counts once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cut_films import Border, Kind, all_kinds
from qwen_shots.client.film import frames
from qwen_shots.client.shots import DETECTORS, make_detector
from qwen_shots.client.thumbnails import Thumbnails

TOLERANCE = 1  # pictures: where two fields or a mixed picture lie between two shots, either may count


@dataclass(frozen=True, slots=True)
class Score:
    """How many borders were right, found and there."""

    right: int = 0
    found: int = 0
    there: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(self.right + other.right, self.found + other.found, self.there + other.there)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 1 where nothing was there or found."""
        return 2 * self.right / (self.found + self.there) if self.found + self.there else 1.0

    def __str__(self) -> str:
        precision, recall = (self.right / whole if whole else 1.0 for whole in (self.found, self.there))
        return f"{precision:.2f} {recall:.2f} **{self.f1:.2f}**"


def score(kind: Kind, found: Sequence[int]) -> Score:
    """Compare the borders that were found with the truth."""
    left = list(found)
    right = sum(_taken(border, left) for border in kind.borders)
    allowed = sum(_taken(border, left) for border in kind.optional)
    return Score(right, len(found) - allowed, len(kind.borders))


def _taken(border: Border, found: list[int]) -> bool:
    """Whether one of those found is this border; it is no other's then."""
    nearest = min(found, key=lambda frame: abs(frame - border.frame), default=None)
    if nearest is None or abs(nearest - border.frame) > border.slack + TOLERANCE:
        return False
    found.remove(nearest)
    return True


def table(scores: dict[str, dict[str, Score]]) -> str:
    """Precision, recall and F1 by kind and detector.

    Args:
        scores: by kind, then by detector.
    """
    detectors = list(next(iter(scores.values())))
    lines = [f"| kind | {' | '.join(detectors)} |", "|---" * (1 + len(detectors)) + "|"]
    lines += [f"| {kind} | {' | '.join(str(each) for each in row.values())} |" for kind, row in scores.items()]
    return "\n".join(lines)


def borders(film: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """The borders that each detector finds in a film, all in one reading."""
    thumbnails, detectors = Thumbnails(), {name: make_detector(name) for name in names}
    found: dict[str, list[int]] = {name: [] for name in detectors}
    for frame in frames(film):
        picture = thumbnails.make(frame)
        for name, detector in detectors.items():
            found[name] += [border.frame for border in detector.look(picture)]
    for name, detector in detectors.items():
        found[name] += [border.frame for border in detector.finish()]
    return found


def measure(kinds: dict[str, Kind], detectors: Iterable[str], folder: Path) -> dict[str, dict[str, Score]]:
    """Render each film, and cut it with each detector."""
    scores: dict[str, dict[str, Score]] = {}
    for name, kind in kinds.items():
        found = borders(kind.write(folder / "film.mkv"), detectors)
        scores[name] = {each: score(kind, numbers) for each, numbers in found.items()}
        print(f"{name}: {', '.join(f'{each} {value.f1:.2f}' for each, value in scores[name].items())}", file=sys.stderr)
    return scores


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuts", description=__doc__)
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=DETECTORS, help="which ones")
    parser.add_argument("--only", default="", metavar="WORD", help="kinds whose name has this in it")
    options = parser.parse_args(argv)
    kinds = {name: kind for name, kind in all_kinds().items() if options.only in name}
    with tempfile.TemporaryDirectory() as folder:
        print(table(measure(kinds, options.detectors, Path(folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
