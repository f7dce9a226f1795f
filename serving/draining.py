"""An HTTP server that finishes what it has accepted before it stops."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import Any, Protocol

import uvicorn
from fastapi import FastAPI

from engines.base import Engine
from processes import stop_signals
from serving.accepting import accept_connections
from serving.connections import protocol_for
from serving.model_header import model_id
from settings import Settings

# For uvicorn in every mode. No proxy headers: they would let anybody claim to be this machine.
OPTIONS: dict[str, Any] = {
    "proxy_headers": False,
    "server_header": False,
    "access_log": False,
    "log_config": None,
    "ws": "none",
}

# How long answers that are being sent may still take when the port is closed.
LAST_SECONDS = 2


class CreateApp(Protocol):
    """Builds the app: `server.create_app`."""

    def __call__(self, settings: Settings, engine: Engine | None = None) -> FastAPI:
        """With an engine of its own, or this one."""


class DrainingServer(uvicorn.Server):
    """Answers until the shots in hand are finished: /health says that it is draining, and new shots get 503.

    Args:
        app: what is served; its `state` has `draining`, `in_hand` and `out_of_time`.
        drain_seconds: how long accepted shots are waited for. Those that are left then are told so.
    """

    def __init__(self, app: FastAPI, drain_seconds: float) -> None:
        state = app.state
        http = protocol_for(state.metrics, lambda: model_id(state.engine.info, state.settings))
        keep_alive = state.settings.server.keep_alive
        super().__init__(
            uvicorn.Config(
                app, http=http, timeout_keep_alive=keep_alive, timeout_graceful_shutdown=LAST_SECONDS, **OPTIONS
            )
        )
        self._state = state
        self._drain_seconds = drain_seconds
        self._drain_until = math.inf
        self._tasks: set[asyncio.Task[None]] = set()
        self.protocol: Any = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        await super().startup(sockets=[])
        self.protocol = self.config.http_protocol_class
        for listening in sockets or []:
            self._keep(accept_connections(listening, self.adopt))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and end those that there are."""
        for task in self._tasks:
            task.cancel()
        await super().shutdown(sockets)

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that was accepted."""
        self._keep(self._adopt(connection))

    async def _adopt(self, connection: socket.socket) -> None:
        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = self.protocol(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
        except OSError:
            connection.close()
            self.on_gone()

    def on_gone(self) -> None:
        """Called when a connection's client went away before it was adopted."""

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Begin to drain at every signal that means a stop; uvicorn knows no SIGHUP."""
        if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in stop_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. A second Ctrl-C stops at once."""
        # Not uvicorn's own handler: it would raise the signal again at the end, and an orderly stop exits with 0.
        if self._state.draining and sig == signal.SIGINT:
            self.force_exit = self.should_exit = True
        if not self._state.draining:
            self._state.draining = True
            self._drain_until = time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Every 0.1 s: whether to close the port."""
        if self._state.draining:
            late = time.monotonic() - self._drain_until
            if late >= 0:
                self._state.out_of_time.set()
            # Later still, a client is in hand that does not send what it began to send.
            self.should_exit |= self._state.in_hand == 0 or late >= 1
        return await super().on_tick(counter)
