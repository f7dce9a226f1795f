"""Accept connections for as long as the server runs, also while it has no file descriptor left for one."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Callable

log = logging.getLogger("qwen_server")

# The system keeps a connection waiting that can't be accepted, so the next try fails in the same way.
AGAIN_SECONDS = 0.2
# A flood of connections must not become a flood of lines.
SAY_AGAIN_SECONDS = 60.0


class SeldomLog:
    """Logs an error, and leaves out what comes within a minute of the last one."""

    def __init__(self) -> None:
        self._again = -math.inf

    def error(self, message: str, *values: object) -> None:
        """Log it, or not."""
        if time.monotonic() >= self._again:
            self._again = time.monotonic() + SAY_AGAIN_SECONDS
            log.error(message, *values)


async def accept_connections(listening: socket.socket, take: Callable[[socket.socket], None]) -> None:
    """Give each connection to `take`. Never ends.

    Not asyncio's own loop: when descriptors run out, it tries as often as the port's queue is long, each time with a
    traceback, and doubles its tries every second.
    """
    loop = asyncio.get_running_loop()
    listening.setblocking(False)
    seldom = SeldomLog()
    while True:
        try:
            connection, _ = await loop.sock_accept(listening)
        except OSError as error:
            seldom.error("no connection can be accepted: %s; trying on", error.strerror)
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        take(connection)
