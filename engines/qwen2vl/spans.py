"""Sequences of tokens that lie one behind the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Spans:
    """Where sequences lie in a tensor of tokens.

    Attributes:
        starts: int32 of shape (sequences + 1,): where each begins, and behind the last one.
        longest: no sequence has more tokens; a bound may be larger than the truth.
        lengths: int32 of shape (sequences,): how many tokens count of each; None: all up to the next one.
    """

    starts: Tensor
    longest: int
    lengths: Tensor | None = None
