"""Exchanges with a server over HTTP: each answer is bounded in size, unpacked, and in the time that it takes in all.

A timeout of httpx bounds each read and not their number, so a server that sends a byte now and then would hold its
client for ever; and a megabyte of gzip unpacks to gigabytes.
"""

from __future__ import annotations

import ssl
import threading
import time
import zlib
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from qwen_shots.loopback import is_this_machine

CONNECT_SECONDS = 5.0
# Pieces of a request between which the time is looked at.
WRITTEN_BYTES = 1 << 16
READ_BYTES = 1 << 16


class AnswerTooLarge(Exception):
    """The answer holds more bytes than it may."""


class Exchanges:
    """Connections to one server, shared by threads.

    Args:
        base_url: its address. A name and a password in it are sent where no key is (RFC 7617).
        key: sent as a bearer token; empty for none.

    Raises:
        ImportError: the environment names a SOCKS proxy, and the package for those is missing.
        ValueError: the environment names a proxy that is none.
    """

    def __init__(self, base_url: httpx.URL, key: str) -> None:
        self._deadline = Deadline()
        self._http = httpx.Client(
            base_url=base_url.copy_with(userinfo=b""),
            headers={"Accept-Encoding": "gzip"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            auth=(base_url.username, base_url.password) if base_url.userinfo and not key else None,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            # A transport of our own is asked past the proxies of the environment, which have no way to this machine.
            transport=httpx.HTTPTransport() if is_this_machine(base_url.host) else None,
        )
        # httpx has no argument for it, and one transport for each proxy of the environment.
        for transport in (self._http._transport, *self._http._mounts.values()):  # noqa: SLF001
            if isinstance(transport, httpx.HTTPTransport):
                transport._pool._network_backend = TimedBackend(self._deadline)  # noqa: SLF001

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def exchange(
        self, method: str, path: str, body: bytes | None, *, explain: bool, seconds: float, most_bytes: int
    ) -> httpx.Response:
        """Send one request and read its answer.

        Args:
            method: GET or POST.
            path: below the server's address.
            body: JSON; None for none.
            explain: whether the answer shall bear evidence.
            seconds: how long all of it may take.
            most_bytes: how large the answer's body may be, unpacked.

        Raises:
            httpx.TransportError: no answer came, or not in time.
            httpx.DecodingError: the body is packed in a way that was not asked for, or is broken.
            AnswerTooLarge: the body is larger.
        """
        self._deadline.set(seconds)
        headers = {"Content-Type": "application/json"} if body else None
        params = {"explain": "true"} if explain else None
        with self._http.stream(method, path, content=body, headers=headers, params=params) as answer:
            content = _unpacked(answer, most_bytes)
        kept = [(name, value) for name, value in answer.headers.multi_items() if not name.startswith("content-")]
        return httpx.Response(answer.status_code, headers=kept, content=content, request=answer.request)


def _unpacked(answer: httpx.Response, most_bytes: int) -> bytes:
    coding = answer.headers.get("content-encoding", "identity").strip().lower()
    if coding not in {"identity", "gzip", "x-gzip"}:
        raise httpx.DecodingError("the answer is packed in a way that was not asked for")
    gzip = None if coding == "identity" else zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    content = bytearray()
    try:
        for part in answer.iter_raw(READ_BYTES):
            content += gzip.decompress(part, most_bytes + 1 - len(content)) if gzip else part
            if len(content) > most_bytes:
                raise AnswerTooLarge
    except zlib.error:
        raise httpx.DecodingError("the answer is no gzip") from None
    if gzip and not gzip.eof:
        raise httpx.DecodingError("the answer's gzip is cut short")
    return bytes(content)


class Deadline(threading.local):
    """When the exchange of this thread must have ended."""

    def __init__(self) -> None:
        self._until = 0.0

    def set(self, seconds: float) -> None:
        """Let the exchange take so long from now on."""
        self._until = time.monotonic() + seconds

    def left(self, timeout: float | None = None) -> float:
        """Return the seconds that are left, but at most `timeout`.

        Raises:
            httpcore.ReadTimeout: none are left.
        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout
        return left if timeout is None else min(left, timeout)


class TimedBackend(httpcore.SyncBackend):
    """Opens connections whose reads and writes end at the deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """See `httpcore.NetworkBackend`."""
        left = self._deadline.left(timeout)
        return TimedStream(super().connect_tcp(host, port, left, local_address, socket_options), self._deadline)


class TimedStream(httpcore.NetworkStream):
    """A connection whose reads and writes end at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See `httpcore.NetworkStream`."""
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See `httpcore.NetworkStream`."""
        for start in range(0, len(buffer), WRITTEN_BYTES):
            self._stream.write(buffer[start : start + WRITTEN_BYTES], self._deadline.left(timeout))

    def close(self) -> None:
        """See `httpcore.NetworkStream`."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """See `httpcore.NetworkStream`."""
        left = self._deadline.left(timeout)
        return TimedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """See `httpcore.NetworkStream`."""
        return self._stream.get_extra_info(info)
