"""HTTP/1.1 as RFC 9112 has it where h11 is lenient, in turns that no client can make long."""

from __future__ import annotations

from urllib.parse import urlsplit

import h11

# What one connection may have read of it before others get their turn: some 30 us each, be it a chunk of one byte.
EVENTS_A_TURN = 8

# Chunks that a body may come in, and one more for each so many bytes.
MAX_CHUNKS = 10_000
BYTES_A_CHUNK = 4096


class StrictConnection(h11.Connection):
    """The server's side of a connection.

    Attributes:
        is_behind: whether there may be more to read in what has come in: the turn is over.
        refusal: what is wrong with a request that is refused here; None for what h11 refuses.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER)
        self.is_behind = False
        self.refusal: str | None = None
        self._left = EVENTS_A_TURN
        self._chunks = self._bytes = 0

    def begin_turn(self) -> None:
        """Let some more events be read."""
        self.is_behind, self._left = False, EVENTS_A_TURN

    def next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        """The next event of this turn; NEED_DATA when it is over.

        Raises:
            h11.RemoteProtocolError: what came in is not HTTP, or not as it must be.
        """
        if self._left == 0:
            self.is_behind = True
            return h11.NEED_DATA
        self._left -= 1
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
            self._check_framing(event)
            return self._in_origin_form(event)
        if isinstance(event, h11.Data):
            self._count_chunk(event)
        return event

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override] # its overloads say the same at length
        """The bytes of an event. An answer before the end of its request's body says that the connection is closed."""
        if isinstance(event, h11.Response) and self.their_state is h11.SEND_BODY:
            headers = [(name, value) for name, value in event.headers if name != b"connection"]
            headers.append((b"connection", b"close"))
            event = h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
        return super().send(event)

    def _check_framing(self, request: h11.Request) -> None:
        if not request.http_version.startswith(b"1."):
            self._refuse("HTTP/1.1 and HTTP/1.0 are served")
        names = {name for name, _ in request.headers}
        if b"transfer-encoding" not in names:
            return
        if b"content-length" in names:  # RFC 9112, section 6.1: it may be smuggled
            self._refuse("Transfer-Encoding and Content-Length exclude each other; send one of them")
        if request.http_version < b"1.1":
            self._refuse("HTTP/1.0 has no Transfer-Encoding; send Content-Length")

    def _in_origin_form(self, request: h11.Request) -> h11.Request:
        """A request as a proxy sends it, with its whole address, as others do: RFC 9112, section 3.2.2."""
        if not request.target.lower().startswith((b"http://", b"https://")):
            return request
        authority = request.target.split(b"//", 1)[1].split(b"/")[0].split(b"?")[0]
        try:
            is_host = b"@" not in authority and bool(urlsplit(b"//" + authority).hostname)
        except ValueError:
            is_host = False
        if not is_host:
            self._refuse("the request's address must be http://HOST:PORT/PATH")
        path = request.target.split(b"//", 1)[1][len(authority) :]
        return h11.Request(
            method=request.method,
            target=path if path.startswith(b"/") else b"/" + path,
            # What the Host header says is ignored.
            headers=[(b"host", authority), *(header for header in request.headers if header[0] != b"host")],
            http_version=request.http_version,
        )

    def _count_chunk(self, data: h11.Data) -> None:
        self._bytes += len(data.data)
        self._chunks += data.chunk_end
        if self._chunks > MAX_CHUNKS + self._bytes // BYTES_A_CHUNK:
            self._refuse(f"a body may come in {MAX_CHUNKS:,} chunks, and one more for each {BYTES_A_CHUNK:,} bytes")

    def _refuse(self, why: str) -> None:
        self.refusal = why
        raise h11.RemoteProtocolError(why)
