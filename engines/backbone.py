"""What the runner needs of a model: a batch of shots in, chances of labels and caption tokens out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from engines.base import ShotPictures

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class BackboneOutput:
    """What a model says of a batch, in the host's memory.

    Attributes:
        wholes: float32 (questions, 2): the chances of "0" and "1", among the whole vocabulary. All questions of all
            shots.
        digits: float32 (questions, 10): likewise of the digit behind "0.".
        questions: how many of them each shot has.
        tokens: (shots, steps): the captions' tokens. What stands behind a stop means nothing.
    """

    wholes: Tensor
    digits: Tensor
    questions: Sequence[int]
    tokens: Tensor


class Backbone(Protocol):
    """A model's forward passes. Implementations: `engines.qwen2vl` and, for whatever else there is, `engines.stock`."""

    def text_tokens(self, pictures: int) -> int:
        """Tokens that a shot of so many pictures costs a batch beside theirs; its caption's are among them."""

    def warm_up(self, tokens: int, longest: int) -> None:
        """After a first look: do what full batches would otherwise wait for.

        Args:
            tokens: what a batch will hold at most.
            longest: what a shot will have at most. More is answered too, only more slowly.
        """

    def prepare(self, shots: Sequence[ShotPictures]) -> Any:
        """Everything that the host does for a batch; may run beside another batch."""

    def run(self, batch: Any, ask: Callable[[], None] | None = None) -> BackboneOutput:
        """Ask the model about what was prepared.

        Args:
            batch: what `prepare` gave.
            ask: called when the device has about five sixths of the work behind it: the next batch would come just in
                time, and the later it is put together, the larger it is.
        """
