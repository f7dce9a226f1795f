"""Which web pages may ask from a browser: those of this machine, and those that `server.allowed_origins` names."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import ALL_METHODS, CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from problems import problem
from qwen_shots.loopback import is_local_origin

# What a page may read of an answer beside its body.
EXPOSED = ("Retry-After", "X-Model", "X-Request-ID", "Preference-Applied")


class AllowedPages(CORSMiddleware):
    """Answers a browser's preflight, which comes without a key, and lets the pages that may ask read their answers.

    What another page asks is answered as if there were no page: the browser keeps the answer from it.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("*",),
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; with what a browser wants to know where the page may ask."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        if origin is None or not self.is_allowed_origin(origin):
            await self.app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and headers.get("access-control-request-method", "GET") not in ALL_METHODS:
            allowed = ", ".join(ALL_METHODS)
            response = problem(
                scope,
                status=400,
                slug="method-not-allowed",
                title="The method is not allowed here",
                detail=f"Access-Control-Request-Method: not a known method; allowed are {allowed}",
                headers={"Vary": "Origin"},
            )
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether a page of this origin may ask."""
        return origin in self.allow_origins or is_local_origin(origin)
