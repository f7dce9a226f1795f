"""One shot's reading as a CUDA graph: alone it is bound by launches, and for the same sizes they are the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.qwen2vl.preparing import Sizes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Sizes whose reading stays recorded. A film has one.
MOST_RECORDED = 4
MOST_MET = 1024


@dataclass(frozen=True, slots=True)
class Told:
    """What is known on the device before the captions are written.

    Attributes:
        chances: float32 (questions, 2, labels).
        first: (shots,): each caption's first token.
    """

    chances: Tensor
    first: Tensor


@dataclass(frozen=True, slots=True)
class Recorded:
    """Reading one shot of certain sizes.

    Attributes:
        numbers: its layout on the device.
        content: where the graph finds the pixels.
        told: where it leaves what it has read.
        graph: what is replayed.
    """

    numbers: dict[str, Tensor]
    content: Tensor
    told: Told
    graph: torch.cuda.CUDAGraph

    def replay(self, content: Tensor) -> Told:
        """Read another shot of these sizes."""
        self.content.copy_(content, non_blocking=True)
        self.graph.replay()
        return self.told


class Recordings:
    """Those of the sizes met last; made when sizes are met for the second time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Sizes, Recorded] = OrderedDict()
        self._met: set[Sizes] = set()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, sizes: Sizes, make: Callable[[], Recorded]) -> Recorded | None:
        """The recording for a shot of these sizes; None when they are new."""
        if sizes in self._kept:
            self._kept.move_to_end(sizes)
        elif sizes in self._met:
            self._kept[sizes] = make()
            if len(self._kept) > MOST_RECORDED:
                self._kept.popitem(last=False)
        if len(self._met) >= MOST_MET:
            self._met.clear()
        self._met.add(sizes)
        return self._kept.get(sizes)

    def clear(self) -> None:
        """Forget all, as when the cache has moved."""
        self._kept.clear()
