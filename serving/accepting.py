"""Accept connections for as long as the server runs, also while it has no file descriptor left for one."""

from __future__ import annotations

import asyncio
import logging
import math
import select
import socket
import time
from collections.abc import Callable

log = logging.getLogger("qwen_server")

# The system keeps a connection waiting that can't be accepted, so the next try fails in the same way.
AGAIN_SECONDS = 0.2
# A flood of connections must not become a flood of lines.
SAY_AGAIN_SECONDS = 60.0

# Connections that are accepted before those that are open get their turn. Each costs about half a millisecond until
# its first answer, and /health waits for a few turns.
BATCH = 16

# Linux reports the end of what a client sends as RDHUP, other systems as HUP.
CLIENT_DONE = getattr(select, "POLLRDHUP", select.POLLHUP)


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
    traceback, and doubles its tries every second. And nothing else runs until the queue is empty, so that one client
    that connects, asks and closes in a loop keeps all others waiting for seconds. While more than a batch is waiting,
    connections that their clients have closed meanwhile are not answered.
    """
    loop = asyncio.get_running_loop()
    listening.setblocking(False)
    seldom = SeldomLog()
    accepted = 0  # since the queue was empty
    while True:
        try:
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                accepted = 0
                connection, _ = await loop.sock_accept(listening)
        except OSError as error:
            seldom.error("no connection can be accepted: %s; trying on", error.strerror)
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        accepted += 1
        if accepted > BATCH and _is_abandoned(connection):
            connection.close()
        else:
            take(connection)
        if accepted % BATCH == 0:
            await asyncio.sleep(0)


def _is_abandoned(connection: socket.socket) -> bool:
    """Whether the client has closed its side."""
    poll = select.poll()
    poll.register(connection, CLIENT_DONE)
    return bool(poll.poll(0))
