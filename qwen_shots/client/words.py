"""Finds captions by words: BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework").

A caption bears each of its words, and each long word's beginning too, so that `walk` finds `walking`, below `walk`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain

# The usual constants: how soon more of the same word says no more, and how much long captions are held back.
SATURATION = 1.2
LENGTH_WEIGHT = 0.75

STEM_LETTERS = 4  # walk of walking, dark of darkness

_WORD = re.compile(r"\w+")


def similarity(captions: Sequence[str], wanted: str) -> list[float]:
    """How well each caption fits some words.

    Args:
        captions: any texts.
        wanted: words; case and signs don't matter.

    Returns:
        For each caption its score, 0 where no word of it is wanted.
    """
    bags = [Counter(_terms(caption)) for caption in captions]
    holders = Counter(chain.from_iterable(bags))
    usual = sum(bag.total() for bag in bags) / max(1, len(bags))
    weights = {term: _rarity(holders[term], len(bags)) for term in set(_terms(wanted)) if holders[term]}
    return [sum(weight * _presence(bag, term, usual) for term, weight in weights.items()) for bag in bags]


def _terms(text: str) -> list[str]:
    words = _WORD.findall(text.casefold())
    return words + [f"{word[:STEM_LETTERS]}-" for word in words if len(word) >= STEM_LETTERS]


def _rarity(holders: int, count: int) -> float:
    """Inverse document frequency, in the form that is never negative."""
    return math.log(1 + (count - holders + 0.5) / (holders + 0.5))


def _presence(bag: Counter[str], term: str, usual: float) -> float:
    length = 1 - LENGTH_WEIGHT + LENGTH_WEIGHT * bag.total() / usual
    return bag[term] * (SATURATION + 1) / (bag[term] + SATURATION * length)
