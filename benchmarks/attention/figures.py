"""Checks and times the ways, and puts the figures into tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from benchmarks.attention.cases import Case
from benchmarks.attention.ways import (
    Step,
    Tensors,
    Way,
    own_step,
    question_step,
    trunk_step,
    whole_step,
)

# How far off a way may be: so much, or so many times as far as the first.
ALLOWED, TIMES_FIRST = 0.02, 3
MOST_TOLD = 160  # characters of an error

Clock = Callable[[Callable[[], object]], float]
"""Tells the milliseconds that a call takes."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a way.

    Attributes:
        way: which.
        difference: from the reference, the greatest.
        milliseconds: that it takes.
        right: whether the difference is small enough.
        error: why it didn't run; then the others mean nothing.
    """

    way: Way
    difference: float = 0.0
    milliseconds: float = 0.0
    right: bool = False
    error: str = ""


def measure(step: Step, clock: Clock) -> list[Result]:
    """Check and time every way; one that fails doesn't end the others."""
    reference = step.reference()
    results: list[Result] = []
    allowed = ALLOWED
    for way in step.ways:
        try:
            difference = _difference(way.run(), reference)
            milliseconds = clock(way.run)
        except Exception as error:  # a tile that is too large, an operator that this torch lacks
            results.append(Result(way, error=_told(error)))
            continue
        if not results:
            allowed = max(ALLOWED, TIMES_FIRST * difference)
        # Not a number is not right.
        results.append(Result(way, difference, milliseconds, difference <= allowed))
    return results


def _told(error: Exception) -> str:
    first, *_ = [*str(error).strip().splitlines(), ""]
    return f"{type(error).__name__}: {first[:MOST_TOLD]}"


def _difference(there: Tensors, reference: Tensors) -> float:
    pairs = zip(there, reference, strict=True)
    return float(torch.stack([(one.float() - other.float()).abs().max() for one, other in pairs]).max())


def best_of(results: Sequence[Result]) -> Result:
    """The fastest of those that are right, else of those that ran."""
    return min(results, key=lambda result: (bool(result.error), not result.right, result.milliseconds))


def compare(case: Case, clock: Clock) -> str:
    """All steps of a batch as Markdown."""
    steps: tuple[Step, ...] = trunk_step(case), question_step(case), own_step(case)
    steps = *steps, whole_step(case, sum(step.operations for step in steps))
    measured = {step.name: measure(step, clock) for step in steps}
    told = [table(steps, measured)]
    told += [swept(name, results) for name, results in measured.items()]
    return "\n\n".join(filter(None, told))


def table(steps: Sequence[Step], measured: Mapping[str, Sequence[Result]]) -> str:
    """The best of each way of each step."""
    lines = [
        "| step | way | ms a layer | times the first | TFLOP/s | greatest difference |",
        "|---|---|---|---|---|---|",
    ]
    for step in steps:
        results = measured[step.name]
        for name, same in groupby(results, lambda result: result.way.name):
            best = best_of(list(same))
            way = name if best.way.tile is None else f"{name}, {best.way.tile}"
            lines.append(f"| {step.name} | {way} | {_figures(best, results[0], step.operations)} |")
    return "\n".join(lines)


def _figures(result: Result, first: Result, operations: float) -> str:
    if result.error:
        return "failed | | | "
    ratio = "" if first.error else f"{result.milliseconds / first.milliseconds:.2f}"
    rate = operations / result.milliseconds / 1e9
    wrong = "" if result.right else " WRONG"
    return f"{result.milliseconds:.3f} | {ratio} | {rate:.0f} | {result.difference:.4f}{wrong}"


def swept(name: str, results: Sequence[Result]) -> str:
    """All tiles of a step, fastest first, and what did not run."""
    ran = sorted((each for each in results if each.way.tile and not each.error), key=lambda each: each.milliseconds)
    figures = [f"{each.way.tile}: {each.milliseconds:.3f}{'' if each.right else ' WRONG'}" for each in ran]
    lines = [f"{name}, ms: {'; '.join(figures)}"] if figures else []
    lines += [f"failed: {name}, {each.way.name} {each.way.tile or ''}: {each.error}" for each in results if each.error]
    return "\n".join(lines)
