"""What a connection may do before it is a request: how long its headers take, and how one that is none is answered."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from problems import MEDIA_TYPE, TYPE_PREFIX
from serving.lingering import LingeringTransport
from serving.model_header import MODEL_HEADER
from serving.request_log import note_unparsable
from serving.strict_http import StrictConnection
from telemetry import Metrics

# From the first moment of a connection, or the first byte of a further request on it, to the end of the headers; and
# how long a client may leave an answer unread that does not fit into the system's buffers.
PATIENCE_SECONDS = 15.0

# What one connection may bring in before another one's turn comes. asyncio's 256 KiB from each of 80 connections with
# frames would keep /health waiting twice as long.
READ_BYTES = 65_536


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes connections whose headers do not end, and counts what it can't read as a request."""

    metrics: Metrics
    model: Callable[[], str | None]
    conn: StrictConnection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = StrictConnection()
        self._goes_on = False
        self._headers_end: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers."""
        lingering: Any = LingeringTransport(transport, lambda: self.conn.their_state in {h11.SEND_BODY, h11.ERROR})
        super().connection_made(lingering)
        if hasattr(transport, "max_size"):  # asyncio's own transports; uvloop's have another way
            transport.max_size = READ_BYTES
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Wait on while there are no whole headers; no longer when there are. Nothing is read behind a last answer."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            self._stop_waiting()
        elif self._headers_end is None:
            self._await_headers()

    def handle_events(self) -> None:
        """Read one turn's events; the others after those of other connections."""
        self.conn.begin_turn()
        super().handle_events()
        if self.conn.is_behind and not self._goes_on and not self.transport.is_closing():
            self._goes_on = True
            self.transport.pause_reading()
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._goes_on = False
        if self.transport.is_closing():
            return
        self.handle_events()
        if not (self._goes_on or self.flow.read_paused or self.transport.is_closing()):
            self.transport.resume_reading()

    def on_response_complete(self) -> None:
        """Headers of a next request that have begun already get their time from here."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0] and self.cycle.response_complete and self._headers_end is None:
            self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        if self._unread is not None:
            self._unread.cancel()
        self.transport.forget()  # type: ignore[attr-defined]
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Called when the client does not read."""
        super().pause_writing()
        self._unread = self.loop.call_later(PATIENCE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Called when it reads again."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def send_400_response(self, msg: str) -> None:
        """A problem body, a count and a line in the log, as for every other answer."""
        if self.conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            self.transport.close()  # what is broken belongs to a request that has its answer
            return
        request_id, slug = uuid.uuid4().hex, "not-http"
        problem = {
            "type": TYPE_PREFIX + slug,
            "title": "The request is not valid HTTP",
            "status": 400,
            "detail": self.conn.refusal or "the request line or the headers are broken or too long",
            "request_id": request_id,
        }
        body = json.dumps(problem).encode()
        headers = [
            ("Content-Type", MEDIA_TYPE),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            ("X-Request-ID", request_id),
        ]
        if model := self.model():
            headers.append((MODEL_HEADER, model))
        note_unparsable(self.metrics, request_id, slug)
        for event in (h11.Response(status_code=400, headers=headers, reason=b"Bad Request"), h11.Data(data=body)):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        self.transport.close()
        if self.cycle is not None:  # its app may wait for the rest of the body
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _await_headers(self) -> None:
        self._headers_end = self.loop.call_later(PATIENCE_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._headers_end is not None:
            self._headers_end.cancel()
            self._headers_end = None


def protocol_for(metrics: Metrics, model: Callable[[], str | None]) -> type[PatientProtocol]:
    """Bind the protocol to one app; uvicorn makes an instance for each connection.

    Args:
        metrics: the app's counters.
        model: gives the value of X-Model; None while it is not known.
    """
    return type("BoundProtocol", (PatientProtocol,), {"metrics": metrics, "model": staticmethod(model)})
