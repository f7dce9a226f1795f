"""The next batch's pictures, looked at while the last one's captions are being written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor


class Sized(Protocol):
    """A prepared batch."""

    @property
    def sizes(self) -> Sequence[object]:
        """Of each shot."""


BatchT = TypeVar("BatchT", bound=Sized)


class Ahead(Generic[BatchT]):
    """Holds them until the batch's turn."""

    def __init__(self) -> None:
        self._seen: tuple[BatchT, Tensor] | None = None

    def look(self, batch: BatchT | None, see: Callable[[BatchT], Tensor]) -> None:
        """Look at a batch now, where there is one.

        Not at a single shot: its reading may be recorded as a whole, in memory that the captions' steps use.
        """
        self._seen = None
        if batch is None or len(batch.sizes) == 1:
            return
        try:
            self._seen = batch, see(batch)
        except Exception as error:
            # It is this batch's trouble, and comes up again when it is its turn; the other one's captions go on.
            if type(error).__name__ != "OutOfMemoryError":
                raise

    def take(self, batch: BatchT) -> Tensor | None:
        """What was seen of this batch, once; None where nothing was."""
        seen, self._seen = self._seen, None
        return seen[1] if seen and seen[0] is batch else None
