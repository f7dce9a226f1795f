"""The next batch's pictures, looked at while the last one's captions are being written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from engines.qwen2vl.preparing import Prepared


class Ahead:
    """Holds them until the batch's turn."""

    def __init__(self) -> None:
        self._seen: tuple[Prepared, Tensor | None] | None = None

    def look(self, batch: Prepared | None, see: Callable[[Prepared], Tensor]) -> None:
        """Look at a batch now, where there is one; nothing to do where that was done.

        Not at a single shot: its reading may be recorded as a whole, in memory that the captions' steps use.
        """
        if batch is None or len(batch.sizes) == 1 or (self._seen and self._seen[0] is batch):
            return
        self._seen = batch, None
        # Too large is this batch's trouble, and comes up again when it is its turn; the other one's captions go on.
        with contextlib.suppress(torch.OutOfMemoryError):
            self._seen = batch, see(batch)

    def take(self, batch: Prepared) -> Tensor | None:
        """What was seen of this batch, once; None where nothing was."""
        seen, self._seen = self._seen, None
        return seen[1] if seen and seen[0] is batch else None
