"""Errors as HTTP: RFC 9457 problem bodies, made in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from qwen_shots.errors import InvalidInput, QwenShotsError, ShotFailed, Unavailable

TYPE_PREFIX = "urn:qwen-shots:error:"
MEDIA_TYPE = "application/problem+json"

STATUS_OF: Mapping[type[QwenShotsError], int] = {
    InvalidInput: 422,
    ShotFailed: 500,
    Unavailable: 503,
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
    """A problem body for the request that `scope` describes."""
    body = {
        "type": TYPE_PREFIX + slug,
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": scope.get("state", {}).get("request_id", ""),
    }
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def problem_of(scope: Mapping[str, Any], error: QwenShotsError) -> JSONResponse:
    """The problem body of one of this project's errors; the nearest listed ancestor gives the status."""
    status = next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), 500)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Unavailable) else None
    return problem(scope, status=status, slug=error.slug, title=error.title, detail=error.detail, headers=headers)
