"""From the model's distributions to a score.

A score is the expected value of the model's own answer, not its likeliest digit: with p0 and p1 the probabilities of
"0" and "1" before the decimal point (they sum to one) and q_d those of the digits after "0." (likewise),

    score = p1 + p0 * sum_d(q_d * d / 10)

The mean of the distribution correlates better with people's judgement than its mode (Q-Bench, arXiv 2309.14181).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike

from qwen_shots.errors import NotANumber

# Counts up whenever the same shot would get other scores from the same model: with changes of the questions (`prompt`),
# the measurements (`measure`), the sound (`audio`) or the fusion (`fusion`). It is part of the X-Model header.
SCORING_VERSION = 1

DIGITS = "0123456789"

# What can be written, in the order of its chances: 0.0 to 0.9, and 1.0.
ANSWERS = np.arange(11) / 10


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer to one question (one attribute of one key frame).

    Attributes:
        value: expected value, 0..1.
        spread: standard deviation of the answer's distribution, 0..0.5. Wide means that the model is unsure.
        mass: probability that the model puts on the answers asked for (numbers) rather than on other words, 0..1.
        mode: the likeliest single answer, 0..1. Kept to compare with the expected value, never served as a score.
    """

    value: float
    spread: float
    mass: float
    mode: float


def check_mass(readings: Mapping[str, Sequence[Reading]], least: float) -> None:
    """See that the model answered with numbers: a score is the mean of its numbers, however little it believes in them.

    Args:
        readings: attribute to one reading a key frame.
        least: what the mean of `Reading.mass` over an attribute's key frames must reach, 0..1.

    Raises:
        NotANumber: it does not.
    """
    for name, per_frame in readings.items():
        mass = fmean(reading.mass for reading in per_frame)
        if mass < least:
            raise NotANumber(
                f"the model puts {mass:.2g} of its probability for {name} on numbers, at least {least:g} is required "
                "(processing.least_mass)"
            )


def read_score(whole: Sequence[float], digits: Sequence[float]) -> Reading:
    """One answer to one question; arguments and errors as one row of `read_scores`."""
    return read_scores([whole], [digits])[0]


def read_scores(wholes: ArrayLike, digits: ArrayLike) -> list[Reading]:
    """Turn distributions over the vocabulary, cut down to the labels, into scores.

    Args:
        wholes: (questions, 2): probabilities of "0" and "1" before the decimal point. They need not sum to 1: the rest
            is other words.
        digits: (questions, 10): probabilities of "0" to "9" after "0.", likewise.

    Raises:
        NotANumber: a probability is NaN or infinite, or a question's labels have no probability at all.
    """
    whole, digit = (np.asarray(chances, np.float64) for chances in (wholes, digits))
    if not (np.isfinite(whole).all() and np.isfinite(digit).all()):
        raise NotANumber("the model's probabilities hold NaN or infinity; in float16 try bfloat16 or float32")
    whole_mass, digit_mass = whole.sum(1, keepdims=True), digit.sum(1, keepdims=True)
    if (whole_mass <= 0).any() or (digit_mass <= 0).any():
        raise NotANumber("the model gives the numbers 0.0 to 1.0 no probability at all")
    zero, one = np.split(whole / whole_mass, 2, axis=1)
    chances = np.hstack([zero * (digit / digit_mass), one])
    value = chances @ ANSWERS
    variance = (chances * (ANSWERS - value[:, None]) ** 2).sum(1)
    mass = (whole_mass * (one + zero * digit_mass))[:, 0]
    mode = ANSWERS[chances.argmax(1)]
    told = (value.clip(0.0, 1.0), np.sqrt(variance), mass, mode)
    return list(map(Reading, *(column.tolist() for column in told)))
