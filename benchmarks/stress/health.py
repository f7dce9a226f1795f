"""Asks /health again and again from a thread of its own, as whoever watches a server does."""

from __future__ import annotations

import http.client
import threading
import time
from types import TracebackType

from typing_extensions import Self

PAUSE_SECONDS = 0.1
TIMEOUT_SECONDS = 5.0


class HealthChecks:
    """A context in which /health is asked.

    Args:
        port: of loopback.
        patience: seconds after which no answer is a failure.

    Attributes:
        seconds: how long each answer took.
        failures: what was no 200.
    """

    def __init__(self, port: int, patience: float = TIMEOUT_SECONDS) -> None:
        self._port = port
        self._patience = patience
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def _ask_on(self) -> None:
        while not self._end.wait(PAUSE_SECONDS):
            began = time.perf_counter()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._patience)
                connection.request("GET", "/health")
                status = connection.getresponse().status
                connection.close()
            except OSError as error:
                self.failures.append(type(error).__name__)
                continue
            self.seconds.append(time.perf_counter() - began)
            if status != 200:
                self.failures.append(str(status))
