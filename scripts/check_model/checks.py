"""What a checkpoint's answers are worth: pure functions from evidence to measured values, each against its bar.

A value that can't be measured, because the model gave no number, is NaN and passes no bar.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engines.base import ShotReading
from engines.stations import Answer

# A score is the model's word only while numbers are likelier than all other words together.
LABEL_MASS = 0.5
REPEATED = 0.3  # share of repeated words or letters in one caption; plain sentences stay under 0.15
DIFFERENT = 0.5  # share of different captions among the film's shots, which show eight different things
MONOTONE = 0.7  # Spearman's rank correlation
FALL = 0.1  # darkness, from the darkest exposure to the brightest, five stops apart
RISE = 0.05  # motion, from a still picture to a fast pan
SPREAD = 0.02  # standard deviation of a score over the film's shots: below it, it is as good as a constant
SAME_FLOAT32 = 1e-3  # in float32 a batch changes the order of sums, no more
SAME_16_BIT = 0.02  # in 16 bits rounding shows; two hundredths rank no shot before another
# A film of 2,500 shots within the hour; on the CPU a single shot within a minute.
SECONDS = {"cuda": 1.4, "cpu": 60.0}

NGRAM_WORDS, NGRAM_LETTERS = 2, 10
# Scores are equal when they differ by less: rounding is no rank.
RANK_DECIMALS = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table.

    Attributes:
        name: what was measured.
        value: the measured value, NaN where there is none.
        side: whether the value must be at least or at most the bar.
        bar: the bar.
    """

    name: str
    value: float
    side: Literal[">=", "<="]
    bar: float

    @property
    def passed(self) -> bool:
        """Whether the value holds the bar; NaN never does."""
        return self.value >= self.bar if self.side == ">=" else self.value <= self.bar


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a checkpoint was seen to do.

    Attributes:
        attributes: names, in the order of the configuration.
        device: "cuda" or "cpu".
        dtype: in which type it was asked, such as "bfloat16".
        bad_weights: weights that are NaN or infinite.
        film: answers to different shots of a film, asked in batches.
        cut: for each of them, whether its caption ran into the limit.
        exposure: for each exposed shot, the answers along the ladder, from dark to bright.
        speed: for each panned picture, the answers along the ladder, from still to fast.
        together: answers to shots of unequal sizes, asked in one batch.
        alone: answers to the same shots, each asked alone.
        seconds: how long each of these took.
        other_dtype: answers to the film shots in the other type, float32 or bfloat16.
    """

    attributes: tuple[str, ...]
    device: str
    dtype: str
    bad_weights: int
    film: Sequence[Answer]
    cut: Sequence[bool]
    exposure: Sequence[Sequence[Answer]]
    speed: Sequence[Sequence[Answer]] = ()
    together: Sequence[Answer] = ()
    alone: Sequence[Answer] = ()
    seconds: Sequence[float] = ()
    other_dtype: Sequence[Answer] = ()

    @property
    def captions(self) -> list[str]:
        """The film shots' captions, "" where there is no answer."""
        return [answer.caption if isinstance(answer, ShotReading) else "" for answer in self.film]

    @property
    def answers(self) -> list[Answer]:
        """Every answer that was given."""
        ladders = [answer for ladder in (*self.exposure, *self.speed) for answer in ladder]
        return [*self.film, *ladders, *self.together, *self.alone, *self.other_dtype]


# --- the checks ------------------------------------------------------------------------------------------------------


def finite(seen: Evidence) -> list[Check]:
    """No weight and no answer is NaN or infinite."""
    lost = sum(not isinstance(answer, ShotReading) for answer in seen.answers)
    return [
        Check("weights that are NaN or infinite", seen.bad_weights, "<=", 0),
        Check("shots without a number", lost, "<=", 0),
    ]


def label_mass(seen: Evidence) -> list[Check]:
    """Each question is answered by a number: mean probability of "1", or of "0" with a digit behind the point."""
    return [
        Check(f"probability of a number: {name}", _mean(readings(seen.film, name, "mass")), ">=", LABEL_MASS)
        for name in seen.attributes
    ]


def captions(seen: Evidence) -> list[Check]:
    """Captions are there, whole, not babble, and tell the shots apart."""
    words = [" ".join(caption.lower().split()) for caption in seen.captions]
    return [
        Check("captions that are empty", sum(not re.search(r"\w", text) for text in words), "<=", 0),
        Check("captions cut at the limit", sum(seen.cut), "<=", 0),
        Check("repetition in the worst caption", max(map(repetition, words)), "<=", REPEATED),
        Check("different captions, of all", len(set(words)) / len(words), ">=", DIFFERENT),
    ]


def darkness(seen: Evidence) -> list[Check]:
    """The darkness score falls when the same frames get more light."""
    if "darkness" not in seen.attributes:
        return []
    ladders = [[shot_score(answer, "darkness") for answer in ladder] for ladder in seen.exposure]
    return [
        Check("darkness against exposure, Spearman", _mean([climb(ladder) for ladder in ladders]), "<=", -MONOTONE),
        Check("darkness, fall over the exposures", _mean([ladder[0] - ladder[-1] for ladder in ladders]), ">=", FALL),
    ]


def motion(seen: Evidence) -> list[Check]:
    """The motion score rises when the camera pans faster over the same picture."""
    if "motion" not in seen.attributes:
        return []
    ladders = [[shot_score(answer, "motion") for answer in ladder] for ladder in seen.speed]
    return [
        Check("motion against speed, Spearman", _mean([climb(ladder) for ladder in ladders]), ">=", MONOTONE),
        Check("motion, rise over the speeds", _mean([ladder[-1] - ladder[0] for ladder in ladders]), ">=", RISE),
    ]


def spread(seen: Evidence) -> list[Check]:
    """Different shots get different scores."""
    return [
        Check(
            f"spread over different shots: {name}",
            float(np.std([shot_score(answer, name) for answer in seen.film])),
            ">=",
            SPREAD,
        )
        for name in seen.attributes
    ]


def batch(seen: Evidence) -> list[Check]:
    """A shot gets the same answer alone and among others."""
    exact = seen.dtype == "float32"
    bar = SAME_FLOAT32 if exact else SAME_16_BIT
    checks = [Check("alone or in a batch, largest change", gap(seen, seen.together, seen.alone), "<=", bar)]
    if exact:  # in 16 bits rounding may turn a word that is as likely as another
        other = sum(_caption(one) != _caption(two) for one, two in zip(seen.together, seen.alone, strict=True))
        checks.append(Check("alone or in a batch, other captions", other, "<=", 0))
    return checks


def dtypes(seen: Evidence) -> list[Check]:
    """16 bits are enough: no score moves."""
    name = f"{seen.dtype} or {other_dtype(seen.dtype)}, largest change"
    return [Check(name, gap(seen, seen.film, seen.other_dtype), "<=", SAME_16_BIT)]


def duration(seen: Evidence) -> list[Check]:
    """Median time of a shot that is asked alone."""
    return [Check(f"seconds a shot, alone, {seen.device}", statistics.median(seen.seconds), "<=", SECONDS[seen.device])]


QUICK: tuple[Callable[[Evidence], list[Check]], ...] = (finite, label_mass, captions, darkness)
FULL = (*QUICK, motion, spread, batch, dtypes, duration)


def other_dtype(dtype: str) -> str:
    """What a type is compared with."""
    return "bfloat16" if dtype == "float32" else "float32"


# --- measures --------------------------------------------------------------------------------------------------------


def readings(answers: Sequence[Answer], name: str, what: Literal["value", "mass"]) -> list[float]:
    """One number a key frame, over all answers; NaN for an answer that is none."""
    return [
        number
        for answer in answers
        for number in (
            [getattr(reading, what) for reading in answer.readings[name]]
            if isinstance(answer, ShotReading)
            else [math.nan]
        )
    ]


def shot_score(answer: Answer, name: str) -> float:
    """The plain mean over a shot's key frames; NaN where there is no answer."""
    return _mean(readings([answer], name, "value"))


def gap(seen: Evidence, some: Sequence[Answer], others: Sequence[Answer]) -> float:
    """The largest change of any score of any key frame."""
    names = seen.attributes
    one, two = (np.array([readings(answers, name, "value") for name in names]) for answers in (some, others))
    return float(np.abs(one - two).max()) if one.shape == two.shape else math.nan


def repetition(text: str) -> float:
    """Share of n-grams that stood in the text before, 0 to 1: of two words, or of ten letters where that is more.

    Punctuation counts as words, so that "!!!!" is found; letters find what has no spaces.
    """
    words = re.findall(r"\w+|[^\w\s]", text)
    return max(_repeated(words, NGRAM_WORDS), _repeated(list(text), NGRAM_LETTERS))


def _repeated(parts: Sequence[str], length: int) -> float:
    grams = [tuple(parts[start : start + length]) for start in range(len(parts) - length + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def climb(scores: Sequence[float]) -> float:
    """Spearman's rank correlation of scores with their order: 1 rises all along, -1 falls, 0 for a constant."""
    if any(map(math.isnan, scores)):
        return math.nan
    ranks = _ranks([round(score, RANK_DECIMALS) for score in scores])
    if len(set(ranks)) == 1:
        return 0.0
    return statistics.correlation(range(len(ranks)), ranks)


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 0; equal values share the mean of theirs."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _caption(answer: Answer) -> str | None:
    return answer.caption if isinstance(answer, ShotReading) else None
