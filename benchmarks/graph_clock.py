"""How long kernels take, the host that launches them left out."""

from __future__ import annotations

from collections.abc import Callable

import torch

from engines.qwen2vl.graphs import Recorder

WARM, ROUNDS = 3, 20


def milliseconds_of(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Of what `work` launches, recorded as a CUDA graph and replayed."""
    graph = Recorder().record(work)
    assert graph
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for number in range(WARM + rounds):
        if number == WARM:
            began.record()
        graph.replay()
    ended.record()
    torch.cuda.synchronize()
    del graph
    torch.cuda.empty_cache()
    return float(began.elapsed_time(ended)) / rounds
