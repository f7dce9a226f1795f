"""CUDA graphs: kernels that are recorded once and launched together, with no host between them.

All graphs share one pool of memory, so what one leaves there holds until the next one is replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch


@lru_cache(maxsize=1)
def _pool() -> Any:
    return torch.cuda.graph_pool_handle()


def record(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Record what `work` launches on the current device.

    Args:
        work: launches kernels on tensors that stay where they are, and waits for none. It runs once before, so that
            what is compiled or allocated at a first call is.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may allocate pinned memory meanwhile.
    with torch.cuda.graph(graph, pool=_pool(), capture_error_mode="thread_local"):
        work()
    return graph
