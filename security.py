"""Who may ask, and how much: the key and the body limit, as one ASGI middleware.

Both are decided before the body is read: the key from the headers and the path, the limit from Content-Length, or
while a body without one comes in. A body that stops coming in is given up.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from problems import problem
from qwen_shots.errors import QueueFull
from qwen_shots.loopback import is_local_authority, is_local_origin, is_loopback_address
from settings import DEFAULT_API_KEY, ServerSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PUBLIC_PATHS = frozenset({"/", "/README.md", "/health", "/health/live", "/docs", "/redoc", "/openapi.json"})
PUBLIC_PREFIX = "/static/"

# With one of these headers the request was passed on by a proxy, and its sender may be anybody. The standard names, and
# those of proxies, content delivery networks, cloud platforms and tunnels.
PROXY_HEADERS = frozenset(
    {
        b"forwarded",
        b"via",
        b"cdn-loop",
        b"proxy-connection",
        b"client-ip",
        b"true-client-ip",
        b"fastly-client-ip",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-remote-ip",
        b"x-remote-addr",
        b"x-remote-user",
        b"x-varnish",
        b"x-cloud-trace-context",
        b"x-request-start",  # Heroku
        b"x-scheme",  # ingress-nginx
        b"front-end-https",  # Microsoft
    }
)
PROXY_PREFIXES = (
    b"x-forwarded",
    b"x-original-",
    b"x-proxy",
    b"x-envoy-",
    b"x-arr-",  # IIS
    b"x-auth-request-",  # oauth2-proxy
    b"x-haproxy-",
    b"x-ingress-",
    b"proxy-client-",  # WebLogic
    b"wl-proxy-",
    b"cf-",
    b"fly-",
    b"do-",  # DigitalOcean
    b"ali-cdn-",
    b"akamai-",
    b"x-akamai-",
    b"incap-",
    b"x-sucuri-",
    b"x-azure-",
    b"x-ms-",
    b"x-amzn-",
    b"x-amz-cf-",
    b"x-goog-",
    b"x-appengine-",
    b"x-vercel-",
    b"x-nf-",  # Netlify
    b"x-railway-",
    b"tailscale-",
    b"ngrok-",
)

# Sec-Fetch-Site of a browser when no page of another site asks; "none" is a typed address or a bookmark.
OWN_SITE = frozenset({b"same-origin", b"none"})

# A client that sends nothing of its body for this long has gone away; a stop would wait for it. One that drips has so
# long in all, and as much longer as its bytes need at the slowest rate.
BODY_PAUSE_SECONDS = 15.0
SLOWEST_BYTES_A_SECOND = 16_384
TIMED_OUT = 408

# Bodies that may be in memory at once, in bodies of the largest size; a request keeps its body until it is answered.
BODIES_AT_ONCE = 16
BUSY_SECONDS = 5


class BodyRefused(Exception):
    """What comes in is not read any further."""

    def __init__(
        self, status: int, slug: str, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.slug, self.title, self.detail, self.headers = status, slug, title, detail, headers


class Gatekeeper:
    """Lets a request through to `app` only with the key, and only as much of a body as is allowed."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._keys = [key.encode() for key in settings.keys]
        self._max_bytes = settings.max_body_mib * 1024**2
        self._max_mib = settings.max_body_mib
        self._held = 0  # bytes of bodies whose requests are not answered yet

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
        if scheme.lower() != b"bearer" or not self._is_known(key.strip()):
            return "the key is wrong; send one that server.api_key sets: Authorization: Bearer KEY"
        if self._keys == [DEFAULT_API_KEY.encode()] and not _from_this_machine(scope):
            return (
                "the default key is public and works from this machine only, at localhost or a loopback address and "
                "through no proxy; set server.api_key to one of your own"
            )
        return None

    def _is_known(self, key: bytes) -> bool:
        # Every key is compared, so that the time tells neither which one fits nor how far one does.
        return sum(hmac.compare_digest(key, known) for known in self._keys) > 0

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        started = complete = False
        received = 0
        began = time.monotonic()

        async def counted() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()  # waits until the client goes away
            left = began + BODY_PAUSE_SECONDS + received / SLOWEST_BYTES_A_SECOND - time.monotonic()
            message = await _in_time(receive, min(BODY_PAUSE_SECONDS, left))
            size = len(message.get("body", b""))
            received += size
            self._held += size
            self._check_size(received)
            complete = not message.get("more_body", False)
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            self._check_size(int(declared) if declared.isdigit() else 0)
            await self._app(scope, counted, watched)
        except BodyRefused as error:
            if started:
                raise
            response = problem(
                scope,
                status=error.status,
                slug=error.slug,
                title=error.title,
                detail=error.detail,
                headers=error.headers,
            )
            await response(scope, receive, send)
        finally:
            self._held -= received

    def _check_size(self, size: int) -> None:
        """Refuse a body of so many bytes when it, or all that are in memory together, are too large."""
        if size > self._max_bytes:
            detail = f"the body may have at most {self._max_mib} MiB (server.max_body_mib); send fewer shots at once"
            # Not closed: closing while the client still sends would reset the connection under its answer.
            raise BodyRefused(413, "too-large", "The request body is too large", detail)
        if self._held > BODIES_AT_ONCE * self._max_bytes:
            detail = f"{BODIES_AT_ONCE * self._max_mib} MiB of requests are in hand, which is the most; try again later"
            headers = {"Retry-After": str(BUSY_SECONDS)}
            raise BodyRefused(503, QueueFull.slug, QueueFull.title, detail, headers)


async def _in_time(receive: Receive, seconds: float) -> Message:
    try:
        return await asyncio.wait_for(receive(), seconds)
    except asyncio.TimeoutError:
        detail = "the body came in too slowly; send the request again"
        headers = {"Connection": "close"}
        raise BodyRefused(TIMED_OUT, "body-timeout", "The request body did not come in", detail, headers) from None


def _from_this_machine(scope: Scope) -> bool:
    """Whether a request can only have come from this machine, and from no page of another site.

    A site can let one of its names point to this machine (DNS rebinding). What its pages send then comes from loopback,
    but Host and Origin have the site's name.
    """
    client = scope.get("client")
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    hosts = [value for name, value in headers if name == b"host"]
    return (
        client is not None
        and is_loopback_address(client[0])
        and not _passed_on(scope, headers)
        and len(hosts) == 1
        and is_local_authority(hosts[0].decode("latin-1"))
        and _is_local_page(headers)
    )


def _passed_on(scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a proxy can be seen to have sent the request.

    By default nginx adds no header that says so, but it asks in HTTP/1.0 with `Connection: close`. That is the default
    of 1.0, so clients that speak it don't send it.
    """
    options = b",".join(value for name, value in headers if name == b"connection").lower().split(b",")
    if scope.get("http_version") == "1.0" and b"close" in map(bytes.strip, options):
        return True
    return any(name in PROXY_HEADERS or name.startswith(PROXY_PREFIXES) for name, _ in headers)


def _is_local_page(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether what asks is a page of this machine, or no page at all.

    A browser names the page's site in Origin, but not with a GET of the page's own site, and Sec-Fetch-Site is there
    with all that it sends.
    """
    origins = [value for name, value in headers if name == b"origin"]
    if origins:
        return all(is_local_origin(origin.decode("latin-1")) for origin in origins)
    return all(value in OWN_SITE for name, value in headers if name == b"sec-fetch-site")
