"""CUDA graphs: kernels that are recorded once and launched together, with no host between them."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Recorder:
    """Records graphs that share their memory: what one leaves there holds until another of them is replayed."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], object]) -> torch.cuda.CUDAGraph:
        """Record what `work` launches on the current device.

        Args:
            work: launches kernels on tensors that stay where they are, and waits for none. It runs once before, so
                that what is compiled or allocated at a first call is.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate pinned memory meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            work()
        return graph
