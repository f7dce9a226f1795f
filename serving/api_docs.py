"""The pages at /docs and /redoc and the text they show. Their scripts come from a package on this machine's disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic.json_schema import models_json_schema

from problems import TYPE_PREFIX
from qwen_shots.example import EXAMPLE_CREDIT, example_shot
from qwen_shots.schemas import EXAMPLE_ANALYSIS, Batch, Problem, Shot
from serving.model_header import MODEL_HEADER

ASSETS = Path(fastapi_offline.__file__).parent / "static"
REF = "#/components/schemas/{model}"

# Whatever the pages' scripts would fetch, the browser asks this server alone. ReDoc searches in a worker of its own.
POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'; worker-src blob:; frame-ancestors 'none'"
)
# ReDoc shows its maker's logo from the internet; an empty picture stands in for it.
REDOC_LOGO = "https://cdn.redoc.ly/redoc/logo-mini.svg"
NO_LOGO = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/%3E"

TAGS = [
    {"name": "shots", "description": "What the server is for"},
    {"name": "health", "description": "For operators and load balancers"},
]

# So that "Try it out" sends a real shot.
EXAMPLE_SHOT: dict[str, Any] = example_shot().model_dump(exclude_unset=True)

MODEL_HEADER_TEXT: dict[str, Any] = {
    "description": "Which model gives the scores, NAME@FINGERPRINT: scores of equal fingerprints may be compared. The "
    "fingerprint is a hash of the weights (or of what an endpoint says of its model), the attributes, the quantization "
    "and the version of the scoring. Missing until the model's files have been read.",
    "schema": {"type": "string"},
    "example": "Qwen/Qwen2-VL-2B-Instruct@5f0c1d2e3b4a6978",
}

EXAMPLE_BATCH_ANALYSIS: dict[str, Any] = {
    "results": [EXAMPLE_ANALYSIS],
    "errors": [
        {
            "index": 1,
            "shot_id": 2,
            "type": f"{TYPE_PREFIX}invalid-picture",
            "title": "A frame is not a picture that can be read",
            "detail": "images[0] is not a JPEG, PNG or WebP picture",
        }
    ],
}

# Status to the kind of error, its title and an example of a detail. A test holds that these are what the server says.
PROBLEMS: Mapping[int, tuple[str, str, str]] = {
    401: (
        "unauthorized",
        "A valid key is needed",
        "the key is wrong; send one that server.api_key sets: Authorization: Bearer KEY",
    ),
    408: (
        "body-timeout",
        "The request body did not come in",
        "the body came in too slowly; send the request again",
    ),
    413: (
        "too-large",
        "The request body is too large",
        "the body may have at most 64 MiB (server.max_body_mib); send fewer shots at once",
    ),
    415: (
        "unsupported-media-type",
        "The body must be JSON",
        "send the body as JSON, with the header Content-Type: application/json",
    ),
    422: ("invalid-shot", "The shot is not valid", "images: has 11 items; at most 10 are allowed"),
    500: ("not-a-number", "The model gave no number for the shot", "the model's answer holds no number"),
    503: (
        "queue-full",
        "The server is busy",
        "1280 shots are waiting, which is the most (server.max_queue_shots); try again later",
    ),
}


def json_body(schema: str, example: dict[str, Any]) -> dict[str, Any]:
    """The request body of a route that reads its body itself."""
    content = {"application/json": {"schema": {"$ref": REF.format(model=schema)}, "example": example}}
    body = {"description": f"The example's frames: {EXAMPLE_CREDIT}", "required": True, "content": content}
    return {"requestBody": body, "security": [{"bearer": []}]}


def json_answer(description: str, example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """A good answer with an example whose keys keep their order."""
    return {200: {"description": description, "content": {"application/json": {"example": example}}}}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route answers when it does not answer."""
    return {status: _problem_response(status, *PROBLEMS[status]) for status in statuses}


def _problem_response(status: int, slug: str, title: str, detail: str) -> dict[str, Any]:
    example = {
        "type": TYPE_PREFIX + slug,
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": "9ec4fc02728a457fad556789d15e5106",
    }
    content = {"schema": {"$ref": REF.format(model="Problem")}, "example": example}
    return {"description": title, "content": {"application/problem+json": content}}


def add_docs(app: FastAPI) -> None:
    """Give the app its pages, their scripts and the whole OpenAPI text."""
    headers = {"Content-Security-Policy": POLICY}
    redoc_script = (ASSETS / "redoc.standalone.js").read_text(encoding="utf-8").replace(REDOC_LOGO, NO_LOGO)

    @app.head("/static/redoc.standalone.js", include_in_schema=False)
    @app.get("/static/redoc.standalone.js", include_in_schema=False)
    def redoc_js() -> Response:
        return Response(redoc_script, media_type="text/javascript")

    app.mount("/static", StaticFiles(directory=ASSETS), name="static")

    @app.head("/docs", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    def swagger() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=f"{app.title}: try it",
            swagger_js_url="/static/swagger-ui-bundle.js",
            swagger_css_url="/static/swagger-ui.css",
            swagger_favicon_url="/static/favicon.png",
            swagger_ui_parameters={"defaultModelsExpandDepth": 0, "displayRequestDuration": True},
        )
        page.headers.update(headers)
        return page

    @app.head("/redoc", include_in_schema=False)
    @app.get("/redoc", include_in_schema=False)
    def redoc() -> HTMLResponse:
        page = get_redoc_html(
            openapi_url="/openapi.json",
            title=f"{app.title}: reference",
            redoc_js_url="/static/redoc.standalone.js",
            redoc_favicon_url="/static/favicon.png",
            with_google_fonts=False,
        )
        page.headers.update(headers)
        return page

    @app.head("/openapi.json", include_in_schema=False)
    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> dict[str, Any]:
        return describe(app)


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI text, with the models that routes check by hand and the bearer scheme."""
    text = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes, tags=TAGS)
    _, extra = models_json_schema(
        [(Shot, "validation"), (Batch, "validation"), (Problem, "validation")], ref_template=REF
    )
    components = text.setdefault("components", {})
    components.setdefault("schemas", {}).update(extra["$defs"])
    shots = components["schemas"]["Batch"]["properties"]["shots"]
    shots["maxItems"] = app.state.settings.processing.max_batch_size
    shots["items"] = {"anyOf": [shots["items"], {"description": "Anything else becomes a row of `errors`"}]}
    _describe_model_header(text)
    key = "The key that `server.api_key` sets. The default one works from the server's own machine only."
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "description": key}}
    return text


def _describe_model_header(text: dict[str, Any]) -> None:
    """Every answer bears it."""
    text["components"]["headers"] = {MODEL_HEADER: MODEL_HEADER_TEXT}
    for operations in text["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                response["headers"] = {MODEL_HEADER: {"$ref": f"#/components/headers/{MODEL_HEADER}"}}
