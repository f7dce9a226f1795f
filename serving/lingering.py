"""Closing a connection whose client still sends, so that it can read its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

# As nginx's lingering_time. A client that reads its answer while it sends has closed by then.
LINGER_SECONDS = 30.0


class LingeringTransport:
    """A transport that closes its own direction first where the client still sends.

    To close the whole at once would reset the connection, and the client would lose the answer. What still comes in is
    thrown away unread, at the price of a system call for each 64 KiB.

    Args:
        transport: asyncio's.
        still_sends: whether the client is in the middle of a request.
    """

    def __init__(self, transport: asyncio.Transport, still_sends: Callable[[], bool]) -> None:
        self._transport = transport
        self._still_sends = still_sends
        self._end: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing is answered any more."""
        return self._end is not None or self._transport.is_closing()

    def close(self) -> None:
        """End what is sent from here; the whole connection when the client does, or after a while. Twice: at once."""
        if self.is_closing() or not self._still_sends():
            self.forget()
            self._transport.close()
            return
        self._end = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.abort)
        self._transport.write_eof()
        self._transport.resume_reading()

    def forget(self) -> None:
        """Nothing is waited for any more."""
        if self._end is not None:
            self._end.cancel()
