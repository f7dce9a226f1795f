"""The pages at /docs and /redoc and the text they show. Their scripts come from a package on this machine's disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic.json_schema import models_json_schema

from qwen_shots.schemas import EXAMPLE_AUDIO, Batch, Problem, Shot

ASSETS = Path(fastapi_offline.__file__).parent / "static"
REF = "#/components/schemas/{model}"

# A 32 x 18 grey gradient, so that "Try it out" sends a picture that can be read.
EXAMPLE_PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAASCAAAAAAfo4OOAAAAMklEQVR42mNg4BCQUNAwsHDw"
    "CIhIyCioaOiYMGPBig07Dpy4cOPBiw8/GEYVjCogRQEAxWUXEJJiTBUAAAAASUVORK5CYII="
)
EXAMPLE_SHOT: dict[str, Any] = {
    "shot_id": 1,
    "images": [EXAMPLE_PICTURE] * 5,
    "audio_features": EXAMPLE_AUDIO,
    "start_time": 10.5,
    "end_time": 12.8,
    "duration": 2.3,
}


def json_body(schema: str, example: dict[str, Any]) -> dict[str, Any]:
    """The request body of a route that reads its body itself."""
    content = {"application/json": {"schema": {"$ref": REF.format(model=schema)}, "example": example}}
    return {"requestBody": {"required": True, "content": content}, "security": [{"bearer": []}]}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route answers when it does not answer."""
    titles = {
        401: "No key, or a wrong one",
        413: "The body is too large",
        415: "The body is not declared as JSON",
        422: "The shot or the batch is not valid",
        500: "The model gave no answer for the shot",
        503: "Busy, loading or draining; see Retry-After",
    }
    schema = {"application/problem+json": {"schema": {"$ref": REF.format(model="Problem")}}}
    return {status: {"description": titles[status], "content": schema} for status in statuses}


def add_docs(app: FastAPI) -> None:
    """Give the app its pages, their scripts and the whole OpenAPI text."""
    app.mount("/static", StaticFiles(directory=ASSETS), name="static")

    @app.get("/docs", include_in_schema=False)
    def swagger() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=f"{app.title}: try it",
            swagger_js_url="/static/swagger-ui-bundle.js",
            swagger_css_url="/static/swagger-ui.css",
            swagger_favicon_url="/static/favicon.png",
        )

    @app.get("/redoc", include_in_schema=False)
    def redoc() -> HTMLResponse:
        return get_redoc_html(
            openapi_url="/openapi.json",
            title=f"{app.title}: reference",
            redoc_js_url="/static/redoc.standalone.js",
            redoc_favicon_url="/static/favicon.png",
            with_google_fonts=False,
        )

    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> dict[str, Any]:
        return describe(app)


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI text, with the models that routes check by hand and the bearer scheme."""
    text = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, extra = models_json_schema(
        [(Shot, "validation"), (Batch, "validation"), (Problem, "validation")], ref_template=REF
    )
    components = text.setdefault("components", {})
    components.setdefault("schemas", {}).update(extra["$defs"])
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return text
