"""From the model's distributions to a score.

A score is the expected value of the model's own answer, not its likeliest digit: with p0 and p1 the probabilities of
"0" and "1" before the decimal point (they sum to one) and q_d those of the digits after "0." (likewise),

    score = p1 + p0 * sum_d(q_d * d / 10)

The mean of the distribution correlates better with people's judgement than its mode (Q-Bench, arXiv 2309.14181).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qwen_shots.errors import NotANumber

DIGITS = "0123456789"


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


def read_score(whole: Sequence[float], digits: Sequence[float]) -> Reading:
    """Turn two distributions over the vocabulary, cut down to the labels, into a score.

    Args:
        whole: probabilities of "0" and "1" before the decimal point. Need not sum to 1: the rest is other words.
        digits: probabilities of "0" to "9" after "0.", likewise.

    Raises:
        NotANumber: a probability is NaN or infinite, or the labels have no probability at all.
    """
    if not all(math.isfinite(p) for p in (*whole, *digits)):
        raise NotANumber("the model's probabilities hold NaN or infinity; in float16 try bfloat16 or float32")
    whole_mass, digit_mass = sum(whole), sum(digits)
    if whole_mass <= 0 or digit_mass <= 0:
        raise NotANumber("the model gives the numbers 0.0 to 1.0 no probability at all")
    zero, one = whole[0] / whole_mass, whole[1] / whole_mass
    chances = [(d / 10, zero * q / digit_mass) for d, q in enumerate(digits)] + [(1.0, one)]
    value = sum(score * chance for score, chance in chances)
    variance = sum((score - value) ** 2 * chance for score, chance in chances)
    return Reading(
        value=min(1.0, max(0.0, value)),
        spread=math.sqrt(variance),
        mass=whole_mass * (one + zero * digit_mass),
        mode=max(chances, key=lambda pair: pair[1])[0],
    )
