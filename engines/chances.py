"""Probabilities of labels, out of an OpenAI-compatible server's answer.

Such a server tells the likeliest 20 tokens only. Mostly all labels are among them, or those that are not weigh nothing.
Else it is asked once more under a schema that allows labels alone: that tells how they share, and the labels that both
answers hold tell how much the labels weigh together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen_shots.errors import ShotFailed

# The most that OpenAI's protocol and vLLM's default (--max-logprobs) allow.
TOP = 20

# What labels weigh together where none is among the likeliest tokens. Not 0, so that their shares still make a score.
NEXT_TO_NOTHING = 1e-9

# A score is off by no more than this when a label outside of the likeliest tokens counts as 0.
NEGLIGIBLE = 1e-4

ONE_TOKEN: Mapping[str, Any] = {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP}


@dataclass(frozen=True, slots=True)
class Top:
    """The likeliest tokens.

    Attributes:
        chances: text of a token to its probability.
        least: the smallest of them; no token that is not told has more.
    """

    chances: dict[str, float]
    least: float

    def holds(self, labels: Sequence[str]) -> bool:
        """Whether the labels that are not told weigh nothing beside those that are."""
        told = [self.chances[label] for label in labels if label in self.chances]
        return (len(labels) - len(told)) * self.least <= NEGLIGIBLE * sum(told)

    def of(self, labels: Sequence[str]) -> list[float]:
        """Probabilities of the labels, 0 where none is told."""
        return [self.chances.get(label, 0.0) for label in labels]


def read_top(answer: Any) -> Top:
    """The likeliest first tokens of an answer.

    Raises:
        ShotFailed: the answer holds none, so the server does not tell probabilities.
    """
    try:
        told = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        pairs = [(str(one["token"]), math.exp(float(one["logprob"]))) for one in told]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        pairs = []
    if not pairs:
        raise ShotFailed("the endpoint's answer holds no log probabilities")
    chances: dict[str, float] = {}
    for token, chance in pairs:
        chances.setdefault(token, chance)  # the likeliest comes first
    return Top(chances, pairs[-1][1])


def only(labels: Sequence[str]) -> dict[str, Any]:
    """Options that let a server answer with one of the labels alone. All of them are digits.

    A JSON schema is what vLLM, SGLang and OpenAI have in common for this.
    """
    schema = {"enum": [int(label) for label in labels]}
    shape = {"name": "label", "strict": True, "schema": schema}
    return {**ONE_TOKEN, "response_format": {"type": "json_schema", "json_schema": shape}}


def complete(labels: Sequence[str], free: Top, among: Top) -> list[float]:
    """Probabilities of all labels.

    Args:
        labels: what was asked for.
        free: the answer to the question as it stands.
        among: the answer under the schema `only(labels)`, where the labels have all the probability.

    Returns:
        A probability a label. Where `free` holds no label at all, they weigh together next to nothing.
    """
    shares = among.of(labels)
    told = max(labels, key=lambda label: free.chances.get(label, 0.0))
    share = among.chances.get(told, 0.0)
    if told in free.chances and share > 0:
        together = free.chances[told] / share
    else:
        together = max(sum(free.of(labels)), NEXT_TO_NOTHING)
    return [share * together for share in shares]
