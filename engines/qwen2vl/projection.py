"""A norm and the linear layer behind it, as layers pass them around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Projection:
    """A root mean square norm and the linear layer behind it.

    Attributes:
        norm: (width,), the norm's weights.
        eps: the norm's.
        weight: (outputs, width).
        bias: (outputs,), where there is one.
    """

    norm: Tensor
    eps: float
    weight: Tensor
    bias: Tensor | None = None
