"""What an operator sees: a line a request, a request id, and counters in Prometheus' text format."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("qwen_server")

WATCHED = frozenset({"/health", "/health/live", "/metrics"})
GIVEN_UP = 499  # whoever runs this app ended the request, because its client went away
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counters of one app. Each app has its own registry, so that tests can run several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("qwen_requests", "Requests answered", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "qwen_request_seconds", "Time to answer", ["route"], buckets=BUCKETS, registry=self.registry
        )
        self.shots = Counter(
            "qwen_shots", "Shots by outcome: ok or the error's type", ["outcome"], registry=self.registry
        )
        self.queue = Gauge("qwen_queue_shots", "Shots that wait for an engine", registry=self.registry)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class RequestLog:
    """Outermost middleware: names each request, times it, counts it, and writes one line about it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Whoever runs this app may have named the request already.
        request_id = scope.setdefault("state", {}).setdefault("request_id", uuid.uuid4().hex)
        began, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            status = GIVEN_UP
            raise
        finally:
            self._note(scope, request_id, status, time.perf_counter() - began)

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        # A path that no route has would let a client invent labels without end.
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        # Whoever watches the server asks every few seconds.
        level = logging.DEBUG if route in WATCHED else logging.INFO
        log.log(level, "%s %s %s %.0f ms id=%s", scope["method"], route, status, seconds * 1000, request_id)


def note_unparsable(metrics: Metrics, request_id: str) -> None:
    """Count and log an answer to what could not be read as a request."""
    metrics.requests.labels("other", "400").inc()
    log.info("not HTTP 400 id=%s", request_id)
