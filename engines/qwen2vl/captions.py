"""Captions of a batch, the likeliest token each step.

On a GPU a step is some 300 kernels of a few microseconds, so it is recorded as a CUDA graph for a few numbers of rows
and replayed: what a step needs and changes lies in tensors that stay where they are, and the host waits for none of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from engines.qwen2vl.spans import Spans

if TYPE_CHECKING:
    from torch import Tensor

    from engines.qwen2vl.decoder import TextDecoder
    from engines.qwen2vl.graphs import Recorder

# Rows of the recorded steps.
GRAPH_ROWS = (1, 2, 8, 16, 32, 48, 64, 96, 128)

# Steps between two looks at whether all captions have ended. On a GPU the host looks at the group before, so that the
# device always has a group ahead of it.
GROUP = 4


@dataclass(frozen=True, slots=True)
class State:
    """What a step reads and changes, for a fixed number of rows.

    Attributes:
        ids: the token that each row wrote last.
        positions: where it stands.
        places: its place in the cache.
        starts: int32 (rows + 1,), where each row's tokens begin in the cache.
        lengths: int32, how many it has there, the last one included.
        written: (rows, most tokens): all tokens so far.
        count: (1,): how many those are.
        ended: bool, rows that have written an end.
        rows: int32 (rows + 1,): 0, 1, 2 and so on.
    """

    ids: Tensor
    positions: Tensor
    places: Tensor
    starts: Tensor
    lengths: Tensor
    written: Tensor
    count: Tensor
    ended: Tensor
    rows: Tensor


class CaptionWriter:
    """Writes captions with one decoder, whose cache holds what they go on from.

    Args:
        decoder: reads and writes the cache. Rows without a shot write to its last place.
        most_tokens: where a caption is cut.
        stops: tokens that end a caption.
    """

    def __init__(self, decoder: TextDecoder, most_tokens: int, stops: Collection[int]) -> None:
        self._decoder = decoder
        self._most_tokens = most_tokens
        self._longest = 0
        self._stops = torch.tensor(sorted(stops), dtype=torch.long, device=decoder.device)
        self._graphs: dict[int, tuple[State, torch.cuda.CUDAGraph]] = {}

    @property
    def _spare(self) -> int:
        return int(self._decoder.cache.shape[1]) - 1

    def record(self, recorder: Recorder, longest: int) -> None:
        """Record the steps as CUDA graphs, the largest first so that the others fit in its memory.

        Args:
            recorder: whose memory they share.
            longest: tokens that the cache holds of one row, mostly; attention is cut into parts by it.

        Where a step can't be recorded, none is, and they are launched one by one.
        """
        self._longest = longest
        self.forget()
        for rows in reversed(GRAPH_ROWS):
            state = self._make_state(rows)
            self._empty(state)
            graph = recorder.record(partial(self._step, state))
            if graph is None:
                self.forget()
                return
            self._graphs[rows] = state, graph

    def forget(self) -> None:
        """Forget the recorded steps, as when the cache is about to move: they read it where it was."""
        self._graphs.clear()

    def write(self, first: Tensor, positions: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        """Write a caption for each row.

        Args:
            first: (rows,), the first token of each.
            positions: (rows,), where it stands.
            starts: (rows,), the cache's place of the row's first token.
            lengths: (rows,), how many tokens the row has there.

        Returns:
            (rows, most tokens) on the device; what stands behind a stop means nothing.
        """
        if self._most_tokens == 0:
            return first.new_empty(len(first), 0)
        most = GRAPH_ROWS[-1] if self._graphs else len(first)
        parts = [
            self._write(*(values[at : at + most] for values in (first, positions, starts, lengths)))
            for at in range(0, len(first), most)
        ]
        return torch.cat(parts)

    def _write(self, first: Tensor, positions: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
        rows = len(first)
        state, graph = self._find_state(rows)
        self._fill(state, first, positions, starts, lengths)
        run = graph.replay if graph else lambda: self._step(state)
        looks = _Looks(on_device=graph is not None)
        for number in range(1, self._most_tokens):
            run()
            if number % looks.every == 0 and looks.all_ended(state.ended):
                break
        return state.written[:rows].clone()

    def _find_state(self, rows: int) -> tuple[State, torch.cuda.CUDAGraph | None]:
        if not self._graphs:
            return self._make_state(rows), None
        return self._graphs[GRAPH_ROWS[bisect_left(GRAPH_ROWS, rows)]]

    def _make_state(self, rows: int) -> State:
        def whole(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=self._decoder.device)

        return State(
            ids=whole(rows),
            positions=whole(rows),
            places=whole(rows),
            starts=whole(rows + 1, dtype=torch.int32),
            lengths=whole(rows, dtype=torch.int32),
            written=whole(rows, max(1, self._most_tokens)),
            count=whole(1),
            ended=whole(rows, dtype=torch.bool),
            rows=torch.arange(rows + 1, dtype=torch.int32, device=self._decoder.device),
        )

    def _empty(self, state: State) -> None:
        """Rows without a shot write over and over to the spare place, and have ended."""
        state.positions.zero_()
        state.places.fill_(self._spare)
        state.starts.fill_(self._spare)
        state.lengths.fill_(1)
        state.count.zero_()
        state.ended.fill_(True)

    def _fill(self, state: State, first: Tensor, positions: Tensor, starts: Tensor, lengths: Tensor) -> None:
        rows = len(first)
        self._empty(state)
        state.ids[:rows] = first
        state.positions[:rows] = positions
        state.places[:rows] = starts + lengths
        state.starts[:rows] = starts
        state.lengths[:rows] = lengths + 1
        state.written[:rows, 0] = first
        state.count.fill_(1)
        state.ended[:rows] = torch.isin(first, self._stops)

    def _step(self, state: State) -> None:
        cached = Spans(state.starts, self._longest or self._spare, state.lengths)
        logits = self._decoder.step(state.ids, state.positions, state.places, cached, state.rows)
        state.ids.copy_(logits.argmax(dim=-1))
        state.written.index_copy_(1, state.count, state.ids[:, None])
        state.ended.logical_or_(torch.isin(state.ids, self._stops))
        state.positions.add_(1)
        live = (state.starts[:-1] != self._spare).to(torch.int32)
        state.places.add_(live)
        state.lengths.add_(live)
        state.count.add_(1).clamp_(max=state.written.shape[1] - 1)


class _Looks:
    """Tells whether all rows have ended; on a GPU one group of steps late, so that it never runs dry."""

    def __init__(self, *, on_device: bool) -> None:
        self.every = GROUP if on_device else 1
        self._on_device = on_device
        self._before: tuple[Tensor, torch.cuda.Event] | None = None

    def all_ended(self, ended: Tensor) -> bool:
        if not self._on_device:
            return bool(ended.all())
        answer = torch.empty(1, dtype=torch.bool, pin_memory=True)
        answer.copy_(ended.all()[None], non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        before, self._before = self._before, (answer, event)
        if before is None:
            return False
        before[1].synchronize()
        return bool(before[0])
