"""The HTTP server: routes, lifespan, and which error becomes which answer. Nothing is built at import."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator
from types import FrameType
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from analyzer import ShotAnalyzer
from api_docs import EXAMPLE_SHOT, add_docs, json_body, problem_responses
from engines.base import Engine, Status
from engines.local import LocalEngine
from problems import TYPE_PREFIX, problem, problem_of
from qwen_shots.errors import Draining, InvalidSettings, QwenShotsError
from qwen_shots.schemas import Analysis, BatchAnalysis, BatchError, Health, Shot
from security import Gatekeeper
from settings import Settings, load_settings
from telemetry import Metrics, RequestLog
from wire import explain, parse_batch, parse_json, parse_shot, shot_id_of

log = logging.getLogger("qwen_server")

VERSION = "0.1.0"
GIB = 1024**3
POLL_SECONDS = 0.2

Explain = Annotated[bool, Query(description="Also answer with what recomputes the scores")]


class UnsupportedMediaType(QwenShotsError):
    """The body is not declared as JSON."""

    slug = "unsupported-media-type"
    title = "The body must be JSON"


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """Build the server.

    Args:
        settings: the whole configuration.
        engine: looks at shots; None makes the one that the settings name.
    """
    metrics = Metrics()
    app = FastAPI(
        title="Qwen shots",
        version=VERSION,
        description="Says how each shot of a film feels: one caption and a score for each attribute.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.settings = settings
    app.state.engine = engine
    app.state.metrics = metrics
    app.state.draining = False
    app.state.failure = None
    app.state.stop_on_failure = False
    _add_routes(app)
    add_docs(app)
    _add_error_handlers(app)
    app.add_middleware(Gatekeeper, settings=settings.server)
    app.add_middleware(RequestLog, metrics=metrics)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    engine: Engine = state.engine or LocalEngine(state.settings)
    state.engine = engine
    state.analyzer = ShotAnalyzer(engine, state.settings.processing)
    await engine.start()
    watcher = asyncio.create_task(_watch_loading(app))
    try:
        yield
    finally:
        watcher.cancel()
        await engine.close()
        state.analyzer.close()


async def _watch_loading(app: FastAPI) -> None:
    """Say when the server is healthy; stop it when the model can't be loaded."""
    engine: Engine = app.state.engine
    while engine.status is Status.LOADING:
        await asyncio.sleep(POLL_SECONDS)
    if engine.status is Status.FAILED:
        app.state.failure = engine.failure
        log.error("%s", engine.failure)
        if app.state.stop_on_failure:
            signal.raise_signal(signal.SIGTERM)
        return
    log.info("healthy: %s on %s", engine.info.model, engine.info.device)


# --- routes ----------------------------------------------------------------------------------------------------------


async def _json(request: Request) -> Any:
    """The decoded body. Big bodies are decoded on a thread, so that /health answers meanwhile."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType("send the body as JSON, with the header Content-Type: application/json")
    return await asyncio.to_thread(parse_json, await request.body())


def _check_open(request: Request) -> None:
    if request.app.state.draining:
        raise Draining("the server is being stopped; send the shot to another or later")


Body = Annotated[Any, Depends(_json)]


def _add_routes(app: FastAPI) -> None:
    metrics: Metrics = app.state.metrics
    failures = problem_responses(401, 413, 415, 422, 503)

    @app.get("/health", tags=["health"], responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        """Whether a shot could be analysed now."""
        answer = _health(app)
        response.status_code = 200 if answer.status == Status.HEALTHY.value else 503
        return answer

    @app.get("/health/live", tags=["health"])
    async def live() -> dict[str, str]:
        """Whether the process should be left running."""
        return {"status": "alive"}

    @app.post(
        "/analyze",
        tags=["shots"],
        response_model_exclude_unset=True,
        responses=failures | problem_responses(500),
        openapi_extra=json_body("Shot", EXAMPLE_SHOT),
        dependencies=[Depends(_check_open)],
    )
    async def analyze(body: Body, *, explain: Explain = False) -> Analysis:
        """One shot in, one analysis out."""
        return await _analyze(app, parse_shot(body), explain=explain)

    @app.post(
        "/analyze_batch",
        tags=["shots"],
        response_model_exclude_unset=True,
        responses=failures,
        openapi_extra=json_body("Batch", {"shots": [EXAMPLE_SHOT]}),
        dependencies=[Depends(_check_open)],
    )
    async def analyze_batch(body: Body, *, explain: Explain = False) -> BatchAnalysis:
        """Several shots in; those that worked and those that did not out. One bad shot costs no other."""
        shots = parse_batch(body, app.state.settings.processing.max_batch_size)
        answers = await asyncio.gather(*(_row(app, index, shot, explain=explain) for index, shot in enumerate(shots)))
        return BatchAnalysis(
            results=[answer for answer in answers if isinstance(answer, Analysis)],
            errors=[answer for answer in answers if isinstance(answer, BatchError)],
        )

    @app.get(
        "/metrics", tags=["health"], openapi_extra={"security": [{"bearer": []}]}, responses=problem_responses(401)
    )
    async def show_metrics() -> Response:
        """Counters in Prometheus' text format."""
        metrics.queue.set(getattr(app.state.engine, "queue_depth", 0))
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _analyze(app: FastAPI, shot: Shot, *, explain: bool) -> Analysis:
    analyzer: ShotAnalyzer = app.state.analyzer
    shots = app.state.metrics.shots
    try:
        answer = await analyzer.analyze(shot, explain=explain)
    except QwenShotsError as error:
        shots.labels(error.slug).inc()
        raise
    shots.labels("ok").inc()
    # An unset field is left out of the answer; a set one, null or not, is shown.
    return answer if explain else Analysis(**answer.model_dump(exclude={"evidence"}))


async def _row(app: FastAPI, index: int, value: Any, *, explain: bool) -> Analysis | BatchError:
    try:
        return await _analyze(app, parse_shot(value), explain=explain)
    except QwenShotsError as error:
        return BatchError(
            index=index,
            shot_id=shot_id_of(value),
            type=TYPE_PREFIX + error.slug,
            title=error.title,
            detail=error.detail,
        )


def _health(app: FastAPI) -> Health:
    engine: Engine = app.state.engine
    info = engine.info
    status = "draining" if app.state.draining else engine.status.value
    memory = info.gpu_memory_bytes
    return Health(
        status="degraded" if status == Status.FAILED.value else status,
        model=info.model,
        device=info.device,
        gpu_count=info.gpu_count,
        gpu_memory_total=f"{memory / GIB:.1f} GB" if memory else None,
    )


# --- errors ----------------------------------------------------------------------------------------------------------


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(QwenShotsError)
    async def known(request: Request, error: QwenShotsError) -> JSONResponse:
        if isinstance(error, UnsupportedMediaType):
            return problem(request.scope, status=415, slug=error.slug, title=error.title, detail=error.detail)
        return problem_of(request.scope, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        detail = explain(error.errors()).replace("shot:", "explain:")
        return problem(request.scope, status=422, slug="invalid-input", title="The request is not valid", detail=detail)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        title = {404: "There is no such page", 405: "The method is not allowed here"}.get(error.status_code, "Error")
        detail = "see /docs for what the server answers"
        return problem(
            request.scope, status=error.status_code, slug="http", title=title, detail=detail, headers=error.headers
        )

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected error, id=%s", request.scope["state"]["request_id"], exc_info=error)
        detail = "an error that nobody foresaw; the server's log has it under the request_id"
        return problem(request.scope, status=500, slug="internal", title="The server failed", detail=detail)


# --- process ---------------------------------------------------------------------------------------------------------


class DrainingServer(uvicorn.Server):
    """Says on /health that it is draining from the first SIGTERM on."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse new shots, finish those in hand, then stop."""
        self.config.app.state.draining = True  # type: ignore[union-attr]
        # Not uvicorn's own handler: it would raise the signal again at the end, and an orderly stop exits with 0.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def app_from_config() -> FastAPI:
    """For `server.reload`: uvicorn calls this in each new process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return create_app(load_settings())


def _bind(settings: Settings) -> socket.socket:
    """Take the port before the model is loaded, so that a port in use is told at once."""
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        raise InvalidSettings(
            f"can't listen on {host}:{port}: {error.strerror}. "
            "Set server.port (QWEN_SERVER__SERVER__PORT) to a free one"
        ) from None
    return taken


def _run(settings: Settings) -> int:
    # No proxy headers: they would let anybody claim to be this machine.
    options: dict[str, Any] = {"proxy_headers": False, "server_header": False, "access_log": False, "log_config": None}
    if settings.server.reload:
        uvicorn.run(
            "server:app_from_config",
            factory=True,
            reload=True,
            reload_includes=["*.py", "*.yaml"],
            reload_excludes=[".venv", "tests"],
            host=settings.server.host,
            port=settings.server.port,
            **options,
        )
        return 0
    app = create_app(settings)
    app.state.stop_on_failure = True
    with _bind(settings) as listening:
        DrainingServer(uvicorn.Config(app, **options)).run(sockets=[listening])
    if app.state.failure:
        print(f"ERROR: {app.state.failure}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Run until told to stop. 0: stopped in order; 1: the model or the port failed; 2: the configuration is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = load_settings()
    except InvalidSettings as error:
        print(f"ERROR: {error.detail}", file=sys.stderr)
        return 2
    try:
        return _run(settings)
    except InvalidSettings as error:
        print(f"ERROR: {error.detail}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
