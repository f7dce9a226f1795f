"""A pipe to another process, seen from an event loop: messages come in as calls, and go out without waiting."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from engines.messages import receive, send


class Channel:
    """Reads and writes on threads of its own. Made and used on the event loop's thread.

    Args:
        pipe: the way to the other process.
        name: of the threads.
        on_message: is called with each message, on the event loop's thread.
        on_lost: is called there once, when the other end is closed.
    """

    def __init__(
        self, pipe: Connection, name: str, on_message: Callable[[Any], None], on_lost: Callable[[], None]
    ) -> None:
        self._pipe = pipe
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_lost = on_lost
        self._outbox: queue.SimpleQueue[tuple[object] | None] = queue.SimpleQueue()
        for work in (self._read, self._write):
            threading.Thread(target=work, name=f"{name}{work.__name__}", daemon=True).start()

    def post(self, message: object) -> None:
        """Send a message, after all that were posted before it. Nothing happens where the other end is closed."""
        self._outbox.put((message,))

    def close(self) -> None:
        """Send what was posted, then let the pipe go."""
        self._outbox.put(None)

    def _write(self) -> None:
        with contextlib.suppress(OSError), self._pipe:
            while (posted := self._outbox.get()) is not None:
                send(self._pipe, *posted)

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._call(self._on_message, receive(self._pipe))
        self._call(self._on_lost)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)
