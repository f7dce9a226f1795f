"""One shot's reading as a CUDA graph: alone it is bound by launches, and for the same sizes they are the same."""

from __future__ import annotations

from collections import Counter, OrderedDict
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
# Sizes that could not be recorded, until nothing is any more.
MOST_FAILED = 4


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

    A graph keeps no tensor alive. What its kernels read is made in the graph, is one of these, or belongs to the model:
    its weights and its cache.

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
    """The recordings of the sizes met last.

    One is made when its sizes are met for the second time. Once it has given way to others, it is made again at the
    4th, 8th, 16th meeting and so on: more sizes in turn than are kept would otherwise be recorded for ever. Sizes that
    can't be recorded are not tried again, and after `MOST_FAILED` of them nothing is recorded.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Sizes, Recorded] = OrderedDict()
        self._met: Counter[Sizes] = Counter()
        self._failed: set[Sizes] = set()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, sizes: Sizes, make: Callable[[], Recorded | None]) -> Recorded | None:
        """Find the recording for a shot of these sizes, or make it.

        Args:
            sizes: of the shot's pictures.
            make: records the reading; None where that can't be done.

        Returns:
            None where the shot has to be read without one.
        """
        if len(self._met) >= MOST_MET:
            self._met.clear()
        self._met[sizes] += 1
        if sizes in self._kept:
            self._kept.move_to_end(sizes)
        elif self._is_due(sizes):
            self._keep(sizes, make())
        return self._kept.get(sizes)

    def _is_due(self, sizes: Sizes) -> bool:
        times = self._met[sizes]
        is_power_of_two = times & (times - 1) == 0
        return times > 1 and is_power_of_two and sizes not in self._failed and len(self._failed) < MOST_FAILED

    def _keep(self, sizes: Sizes, made: Recorded | None) -> None:
        if made is None:
            self._failed.add(sizes)
            return
        self._kept[sizes] = made
        if len(self._kept) > MOST_RECORDED:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all, as when the cache is about to move."""
        self._kept.clear()
        self._met.clear()
