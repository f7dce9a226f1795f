"""CUDA graphs: kernels that are recorded once and launched together, with no host between them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import torch

log = logging.getLogger(__name__)


class Recorder:
    """Records graphs that share their memory: what one leaves there holds until another of them is replayed."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], object]) -> torch.cuda.CUDAGraph | None:
        """Record what `work` launches on the current device.

        Args:
            work: launches kernels on tensors that stay where they are, and waits for none. It runs once before, so
                that what is compiled or allocated at a first call is. Whoever keeps the graph must keep every tensor
                that it reads and that was not made in it: a graph keeps addresses, not tensors.

        Returns:
            The graph; None, after a warning, where `work` can't be recorded and has to be launched as it is.
        """
        current = torch.cuda.current_stream()
        try:
            return self._capture(work)
        except Exception as error:  # of a kernel, of the driver, of memory: the work can be done without a graph
            log.warning("a CUDA graph could not be recorded (%s: %s)", type(error).__name__, error)
            torch.cuda.set_stream(current)  # torch stays on the capture's
            self._leave_pool()
            return None

    def _leave_pool(self) -> None:
        """End what an interrupted capture began: the allocator would go on for ever as if one were under way."""
        with contextlib.suppress(RuntimeError):  # it has ended
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)  # noqa: SLF001 - no public way
        self._pool = torch.cuda.graph_pool_handle()

    def _capture(self, work: Callable[[], object]) -> torch.cuda.CUDAGraph:
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
