"""What an operator counts: the metrics of one app in Prometheus' text format."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
SHOTS = (1, 2, 4, 8, 16, 32, 64, 128)


class RequestNotes:
    """What is noted of one request on its way, for its line in the log.

    Attributes:
        stages: stage to seconds; of several shots the longest.
        outcomes: `ok` or an error's type to the shots that ended so.
        error: the type of the problem that answered the request; None: it was none.
    """

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.outcomes: dict[str, int] = {}
        self.error: str | None = None


# Of the request that the current task works for; a task that another one makes works for the same.
_NOTES: ContextVar[RequestNotes | None] = ContextVar("notes", default=None)


class Metrics:
    """The counters of one app. Each app has its own registry, so that tests can run several.

    Implements `engines.base.Observer`.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        # Memory, processor time and open files of the server's process; the engines have their own.
        ProcessCollector(registry=registry)
        self.requests = Counter("qwen_requests", "Requests answered", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "qwen_request_seconds", "Time to answer", ["route"], buckets=SECONDS, registry=registry
        )
        self._errors = Counter(
            "qwen_errors", "Requests that were answered by a problem, by its type", ["type"], registry=registry
        )
        self._shots = Counter("qwen_shots", "Shots by outcome: ok or the error's type", ["outcome"], registry=registry)
        self._queue = Gauge("qwen_queue_shots", "Shots that wait for an engine", registry=registry)
        self._stages = Histogram(
            "qwen_stage_seconds",
            "Time of a stage: receive and parse a body; decode, wait and answer of a shot; look at a batch",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self._batches = Histogram("qwen_batch_shots", "Shots in a batch", buckets=SHOTS, registry=registry)
        self._tokens = Counter("qwen_tokens", "Tokens of the batches that were looked at", registry=registry)
        self._memory = Gauge(
            "qwen_gpu_memory_bytes", "GPU memory that an engine process holds", ["engine"], registry=registry
        )
        self._lost = Counter("qwen_engines_lost", "Engine processes that died or were stuck", registry=registry)

    def text(self, queue_depth: int) -> bytes:
        """Everything in Prometheus' text format."""
        self._queue.set(queue_depth)
        return generate_latest(self.registry)

    def note(self) -> RequestNotes:
        """Begin to take notes for the request that this task and its subtasks work for."""
        notes = RequestNotes()
        _NOTES.set(notes)
        return notes

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of the current request."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            self._stages.labels(name).observe(seconds)
            if notes := _NOTES.get():
                notes.stages[name] = max(seconds, notes.stages.get(name, 0.0))

    def shot(self, outcome: str) -> None:
        """Count a shot of the current request: `ok`, or its error's type."""
        self._shots.labels(outcome).inc()
        if notes := _NOTES.get():
            notes.outcomes[outcome] = notes.outcomes.get(outcome, 0) + 1

    def request(self, route: str, status: int, seconds: float | None, error: str | None) -> None:
        """Count a request that was answered, with the type of the problem where it was one."""
        self.requests.labels(route, str(status)).inc()
        if seconds is not None:
            self.seconds.labels(route).observe(seconds)
        if error:
            self._errors.labels(error).inc()

    def waited(self, seconds: float) -> None:
        """A shot has left the queue for an engine."""
        self._stages.labels("wait").observe(seconds)

    def looked(self, shots: int, tokens: int, seconds: float) -> None:
        """An engine has answered a batch."""
        self._batches.observe(shots)
        self._tokens.inc(tokens)
        self._stages.labels("look").observe(seconds)

    def holds(self, engine: int, gpu_bytes: int) -> None:
        """An engine process tells how much GPU memory it holds."""
        self._memory.labels(str(engine)).set(gpu_bytes)

    def lost(self) -> None:
        """An engine process is gone."""
        self._lost.inc()
