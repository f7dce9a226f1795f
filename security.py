"""Who may ask, and how much: the key and the body limit, as one ASGI middleware.

Both are decided before the body is read: the key from the headers and the path, the limit from Content-Length, or
while a body without one comes in.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING

from problems import problem
from settings import DEFAULT_API_KEY, ServerSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PUBLIC_PATHS = frozenset({"/health", "/health/live", "/docs", "/redoc", "/openapi.json"})
PUBLIC_PREFIX = "/static/"

# With one of these, the request was passed on by a proxy and its sender may be anybody.
PROXY_HEADERS = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"})


class BodyTooLargeError(Exception):
    """The body that comes in is over the limit."""


class Gatekeeper:
    """Lets a request through to `app` only with the key, and only as much of a body as is allowed."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._key = settings.api_key.encode()
        self._max_bytes = settings.max_body_mib * 1024**2
        self._max_mib = settings.max_body_mib

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal:
            response = problem(
                scope,
                status=401,
                slug="unauthorized",
                title="A valid key is needed",
                detail=refusal,
                headers={"WWW-Authenticate": "Bearer"},
            )
            await response(scope, receive, send)
            return
        await self._limited(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        """Why the request is not let in; None when it is."""
        path: str = scope["path"]
        if path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIX):
            return None
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        tokens = [value for name, value in headers if name == b"authorization"]
        if len(tokens) != 1:
            return "send one header: Authorization: Bearer KEY"
        scheme, _, key = tokens[0].partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(key.strip(), self._key):
            return "the key is wrong; send the one that server.api_key sets: Authorization: Bearer KEY"
        if self._key == DEFAULT_API_KEY.encode() and not _from_this_machine(scope):
            return "the default key is public and works from this machine only; set server.api_key to one of your own"
        return None

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        started = False
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise BodyTooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if declared.isdigit() and int(declared) > self._max_bytes:
                raise BodyTooLargeError
            await self._app(scope, counted, watched)
        except BodyTooLargeError:
            if started:
                raise
            response = problem(
                scope,
                status=413,
                slug="too-large",
                title="The request body is too large",
                detail=f"the body may have at most {self._max_mib} MiB (server.max_body_mib); send fewer shots at once",
                headers={"Connection": "close"},
            )
            await response(scope, receive, send)


def _from_this_machine(scope: Scope) -> bool:
    client = scope.get("client")
    if client is None or any(name in PROXY_HEADERS for name, _ in scope["headers"]):
        return False
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
