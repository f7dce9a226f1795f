"""A process that reads requests and decodes frames for an engine in another one; see `fronts`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from multiprocessing.connection import Connection
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from engines.base import Status
from engines.shared import SharedEngine
from logs import log_to_terminal
from processes import end_with_parent, name_process
from qwen_shots.errors import EngineLost
from serving.accepting import SeldomLog
from serving.draining import CreateApp, DrainingServer
from settings import Settings

# Connections that are taken over at once.
MOST_HANDED = 64


class AdoptingServer(DrainingServer):
    """Has no port: its connections are handed to it by another process.

    Args:
        app: what is served.
        drain_seconds: as in `DrainingServer`.
        handed: where connections come from; a byte goes back for each that is closed.
    """

    def __init__(self, app: FastAPI, drain_seconds: float, handed: socket.socket) -> None:
        super().__init__(app, drain_seconds)
        self._handed = handed
        self._seldom = SeldomLog()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections over."""
        await super().startup(sockets)
        self.protocol = self._protocol_that_tells()
        self._handed.setblocking(False)
        asyncio.get_running_loop().add_reader(self._handed.fileno(), self._take)

    def _take(self) -> None:
        try:
            data, numbers, *_ = socket.recv_fds(self._handed, MOST_HANDED, MOST_HANDED)
        except OSError:
            data, numbers = b"", []
        if not data:  # the process with the port is gone, and the lifeline ends this one
            asyncio.get_running_loop().remove_reader(self._handed.fileno())
        for number in numbers:
            self.adopt(socket.socket(fileno=number))
        if lost := len(data) - len(numbers):
            self._seldom.error("%d connections are lost: no file descriptor is left for them", lost)
            self._tell_closed(lost)

    def on_gone(self) -> None:
        """Called when a connection's client went away before it was adopted."""
        self._tell_closed()

    def _protocol_that_tells(self) -> Any:
        """That of a server with a port, but for the byte at the end; one class for all connections."""
        told = self._tell_closed
        kind: Any = self.config.http_protocol_class

        class Adopted(kind):  # type: ignore[misc] # what is served is a setting
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                told()

        return Adopted

    def _tell_closed(self, count: int = 1) -> None:
        with contextlib.suppress(OSError):
            self._handed.send(b"." * count)


class UpToDate:
    """Middleware: as soon as one front says that the model is loaded, none says otherwise.

    Each is told by itself, so one may know it some moments before the others; those ask before they answer.
    """

    def __init__(self, app: ASGIApp, engine: SharedEngine) -> None:
        self._app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http" and self._engine.status is Status.LOADING:
            with contextlib.suppress(EngineLost):  # the server is being stopped
                await self._engine.refresh()
        await self._app(scope, receive, send)


def serve(create_app: CreateApp, settings: Settings, name: str, pipe: Connection, handed: socket.socket) -> None:
    """Serve until told to stop, or until the process with the engine is gone.

    Args:
        create_app: builds the app; a function of a module.
        settings: the whole configuration.
        name: of this process.
        pipe: the way to the engine.
        handed: where connections come from.
    """
    name_process(name)
    log_to_terminal(settings.server.log_format)
    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    engine = SharedEngine(pipe, settings.model.name, lambda: app.state.metrics.text(0))
    app = create_app(settings, engine)
    app.state.all_counts = engine.counts
    app.state.watches_loading = False  # the process with the engine does
    app.add_middleware(UpToDate, engine=engine)
    AdoptingServer(app, settings.server.drain_timeout, handed).run()
