"""One line and one count for each request: its name, what became of it, how long it took."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import TYPE_CHECKING

from logs import FIELDS
from telemetry import Metrics, RequestNotes

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("qwen_server")

WATCHED = frozenset({"/health", "/health/live", "/metrics"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # another may be of any length
GIVEN_UP = 499  # whoever runs this app ended the request, because its client went away


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
        state = scope.setdefault("state", {})
        request_id = state.setdefault("request_id", uuid.uuid4().hex)
        notes = state["notes"] = self._metrics.note()
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
            # A path that no route has would let a client invent labels without end.
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - began
            self._metrics.request(route, status, seconds, notes.error)
            _write(scope, route, status, seconds)


def note_unparsable(metrics: Metrics, request_id: str, error: str) -> None:
    """Count and log an answer to what could not be read as a request."""
    metrics.request("other", 400, None, error)
    fields = {"request_id": request_id, "status": 400, "error": error}
    log.info("not HTTP 400 id=%s", request_id, extra={FIELDS: fields})


def _write(scope: Scope, route: str, status: int, seconds: float) -> None:
    method = scope["method"] if scope["method"] in METHODS else "other"
    request_id: str = scope["state"]["request_id"]
    notes: RequestNotes = scope["state"]["notes"]
    fields = {
        "request_id": request_id,
        "method": method,
        "route": route,
        "status": status,
        "error": notes.error,
        "ms": _ms(seconds),
        "stages_ms": {name: _ms(took) for name, took in notes.stages.items()},
        "shots": notes.outcomes,
    }
    told = [f"{method} {route} {status}", notes.error, f"{seconds * 1000:.0f} ms"]
    if notes.stages:
        told.append("(" + ", ".join(f"{name} {_ms(took):.0f}" for name, took in notes.stages.items()) + ")")
    if notes.outcomes:
        told.append("shots: " + ", ".join(f"{count} {outcome}" for outcome, count in notes.outcomes.items()))
    told.append(f"id={request_id}")
    # Whoever watches the server asks every few seconds.
    level = logging.DEBUG if route in WATCHED else logging.INFO
    log.log(level, "%s", " ".join(filter(None, told)), extra={FIELDS: fields})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
