"""Asks /health again and again from a process of its own, as whoever watches a server does."""

from __future__ import annotations

import http.client
import multiprocessing
import time
from multiprocessing.connection import Connection
from types import TracebackType

from typing_extensions import Self

PAUSE_SECONDS = 0.1
TIMEOUT_SECONDS = 5.0


class HealthChecks:
    """A context in which /health is asked.

    Args:
        port: of loopback.
        patience: seconds after which no answer is a failure.
        pause: seconds from an answer to the next question.

    Attributes:
        seconds: how long each answer took.
        failures: what was no 200.
    """

    def __init__(self, port: int, patience: float = TIMEOUT_SECONDS, pause: float = PAUSE_SECONDS) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # Not a thread: it would wait for the interpreter while this process makes and reads requests.
        self._process = context.Process(target=_ask_on, args=(theirs, port, patience, pause), daemon=True)
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self._process.start()
        self._pipe.recv()  # it has begun
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._pipe.send(None)
        self.seconds, self.failures = self._pipe.recv()
        self._process.join()


def _ask_on(pipe: Connection, port: int, patience: float, pause: float) -> None:
    """Ask until a word comes; send how long each answer took, and what was no 200."""
    seconds: list[float] = []
    failures: list[str] = []
    pipe.send(None)
    while not pipe.poll(pause):
        began = time.perf_counter()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
            connection.request("GET", "/health")
            status = connection.getresponse().status
            connection.close()
        except OSError as error:
            failures.append(type(error).__name__)
            continue
        seconds.append(time.perf_counter() - began)
        if status != 200:
            failures.append(str(status))
    pipe.send((seconds, failures))
