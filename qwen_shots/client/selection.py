"""Which shots are wanted, and in which order."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qwen_shots.client.store import ShotRecord
from qwen_shots.client.where import Value, parse_where
from qwen_shots.errors import InvalidInput

NUMBERS = ("shot", "start", "end", "duration")
TEXTS = ("name", "caption", "audio")
ERROR = "error"  # why a shot has no scores, in tables
MODEL = "model"  # which one answered, in tables

DIGITS = 6  # microseconds; what comes after them is the sums' own, and would make 1.0 less than 1

_PART = re.compile(r"(\d+(?:\.\d+)?)%")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to pick.

    Attributes:
        by: the score or number that orders the shots, the highest first; None for the film's own order.
        top: at most so many; None for all.
        where: a condition in the words of `where`; None for all shots.
        until: only shots that end by then: `70%` of the film, `1:02:03` or seconds; None for the whole film.
    """

    by: str | None = None
    top: int | None = None
    where: str | None = None
    until: str | None = None


def select(shots: Sequence[ShotRecord], film_seconds: float, wanted: Wanted) -> list[ShotRecord]:
    """Pick from the shots that have scores.

    Args:
        shots: in order of time.
        film_seconds: the film's length.
        wanted: what to pick.

    Returns:
        The shots in order; equal ones as in the film.

    Raises:
        InvalidInput: `by` is no score or number, `top` is below 1, or `until` can't be read.
        InvalidWhere: the condition can't be read.
    """
    if wanted.top is not None and wanted.top < 1:
        raise InvalidInput("the number of shots to show must be at least 1")
    numbers = [*NUMBERS, *score_names(shots).values()]
    end = math.inf if wanted.until is None else moment(wanted.until, film_seconds)
    met = parse_where(wanted.where, numbers, TEXTS) if wanted.where is not None else lambda _: True
    picked = [shot for shot in shots if shot.analysed and round(shot.end - end, DIGITS) <= 0 and met(values_of(shot))]
    if wanted.by is not None:
        picked = _sorted(picked, wanted.by, numbers)
    return picked[: wanted.top]


def score_names(shots: Sequence[ShotRecord]) -> dict[str, str]:
    """Each attribute that any shot has, and its name beside the other values: an attribute may be called `start`."""
    attributes = dict.fromkeys(name for shot in shots for name in shot.scores)
    return {name: f"score_{name}" if name in {*NUMBERS, *TEXTS, ERROR, MODEL} else name for name in attributes}


def values_of(shot: ShotRecord) -> Mapping[str, Value]:
    """A shot's values by name."""
    names = score_names([shot])
    return {
        "shot": shot.number,
        "start": round(shot.start, DIGITS),
        "end": round(shot.end, DIGITS),
        "duration": round(shot.duration, DIGITS),
        "name": shot.name,
        "caption": shot.caption,
        "audio": shot.audio_class,
        **{names[name]: score for name, score in shot.scores.items()},
    }


def moment(text: str, film_seconds: float) -> float:
    """`70%` of a film, `1:02:03.5`, `62:03` or `3723.5` as seconds.

    Raises:
        InvalidInput: it is none of these.
    """
    if found := _PART.fullmatch(text.strip()):
        return min(float(found[1]), 100.0) / 100 * film_seconds
    if found := _CLOCK.fullmatch(text.strip()):
        return int(found[1] or 0) * 3600 + int(found[2] or 0) * 60 + float(found[3])
    raise InvalidInput("a moment of the film looks like 70%, 1:02:03 or 3723.5 (seconds)")


def number_of(shot: ShotRecord, name: str) -> float | None:
    """A score or number of a shot; None where it has none of this name."""
    value = values_of(shot).get(name)
    return float(value) if isinstance(value, int | float) else None


def _sorted(shots: Sequence[ShotRecord], by: str, numbers: Sequence[str]) -> list[ShotRecord]:
    if by not in numbers:
        raise InvalidInput(f"shots can't be ranked by this; they can by {', '.join(sorted(numbers))}")

    def key(shot: ShotRecord) -> float:
        value = number_of(shot, by)
        return -1.0 if value is None else value

    return sorted(shots, key=key, reverse=True)
