"""Errors as HTTP: RFC 9457 problem bodies, made in one place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwen_shots.errors import InvalidInput, QwenShotsError, ShotFailed, Unavailable

log = logging.getLogger("qwen_server")

TYPE_PREFIX = "urn:qwen-shots:error:"
CLIENT_GONE = 499  # nginx's number for it; no client ever sees it
MEDIA_TYPE = "application/problem+json"


class UnsupportedMediaType(QwenShotsError):
    """The body is not declared as JSON."""

    slug = "unsupported-media-type"
    title = "The body must be JSON"


class UnsupportedCoding(UnsupportedMediaType):
    """The body is compressed (RFC 9110, section 15.5.16)."""

    title = "The body must not be compressed"


STATUS_OF: Mapping[type[QwenShotsError], int] = {
    InvalidInput: 422,
    UnsupportedMediaType: 415,
    ShotFailed: 500,
    Unavailable: 503,
}

# What the web framework refuses by itself: status to slug and title.
PLAIN_ERRORS: Mapping[int, tuple[str, str]] = {
    404: ("not-found", "There is no such page"),
    405: ("method-not-allowed", "The method is not allowed here"),
}


def problem(
    scope: Mapping[str, Any],
    *,
    status: int,
    slug: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem body for the request that `scope` describes; the request's notes remember its type."""
    state = scope.get("state", {})
    if notes := state.get("notes"):
        notes.error = slug
    body = {
        "type": TYPE_PREFIX + slug,
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": state.get("request_id", ""),
    }
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def problem_of(scope: Mapping[str, Any], error: QwenShotsError) -> JSONResponse:
    """The problem body of one of this project's errors; the nearest listed ancestor gives the status."""
    status = next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), 500)
    return problem(
        scope, status=status, slug=error.slug, title=error.title, detail=error.detail, headers=_headers_of(error)
    )


def _headers_of(error: QwenShotsError) -> dict[str, str]:
    if isinstance(error, Unavailable):
        return {"Retry-After": str(error.retry_after)}
    return {"Accept-Encoding": "identity"} if isinstance(error, UnsupportedCoding) else {}


def add_error_handlers(app: FastAPI) -> None:
    """Make every error that leaves a route, and every page that is not there, a problem body."""

    @app.exception_handler(QwenShotsError)
    async def known(request: Request, error: QwenShotsError) -> JSONResponse:
        return problem_of(request.scope, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, _: RequestValidationError) -> JSONResponse:
        detail = "explain: true or false are allowed"  # the one parameter that FastAPI itself checks
        return problem(request.scope, status=422, slug="invalid-input", title=InvalidInput.title, detail=detail)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        slug, title = PLAIN_ERRORS.get(error.status_code, ("http", "The request can't be answered"))
        detail = "see /docs for what the server answers"
        return problem(
            request.scope, status=error.status_code, slug=slug, title=title, detail=detail, headers=error.headers
        )

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_GONE)  # nobody reads it; the log and the metrics show it


class Unforeseen:
    """Middleware: an error that no handler knows becomes a problem body with the request's id, and a line in the log.

    Not FastAPI's handler for `Exception`: that one answers outside of all middleware and raises the error once more.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and answer for what goes wrong unless an answer has begun."""
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            if started or scope["type"] != "http":
                raise
            log.exception("unexpected error, id=%s", scope["state"]["request_id"])
            detail = "an error that nobody foresaw; the server's log has it under the request_id"
            response = problem(scope, status=500, slug="internal", title="The server failed", detail=detail)
            await response(scope, receive, send)
