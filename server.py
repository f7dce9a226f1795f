"""The HTTP server: routes and lifespan. Nothing is built at import."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import PlainTextResponse

from analyzer import ShotAnalyzer
from engines.base import Engine, Status
from engines.choice import make_engine
from problems import TYPE_PREFIX, Unforeseen, add_error_handlers
from qwen_shots.errors import QwenShotsError, ShotFailed, Unavailable
from qwen_shots.schemas import EXAMPLE_ANALYSIS, Analysis, BatchAnalysis, BatchError, Health
from security import Gatekeeper
from serving import process
from serving.api_docs import (
    EXAMPLE_BATCH_ANALYSIS,
    EXAMPLE_SHOT,
    add_docs,
    json_answer,
    json_body,
    problem_responses,
)
from serving.cors import AllowedPages
from serving.home import add_home
from serving.intake import Patience, accept, in_time, patience, read_batch, read_shot, while_connected
from serving.loading import until_loaded
from serving.model_header import ModelHeader
from serving.request_log import RequestLog
from serving.wire import parse_batch, parse_shot, shot_id_of
from settings import Settings
from telemetry import Metrics

log = logging.getLogger("qwen_server")

VERSION = "0.1.0"
GIB = 1024**3
RETRY_HEALTH = "5"

HEALTH_503: dict[str, Any] = {"model": Health, "description": "Loading, degraded or draining"}

Explain = Annotated[bool, Query(description="Also answer with what recomputes the scores")]


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """Build the server.

    Args:
        settings: the whole configuration.
        engine: looks at shots; None makes the one that the settings name.

    Raises:
        InvalidSettings: the engine can't be made from them.
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
        redirect_slashes=False,  # a redirect would repeat the Host header, which is the client's word
    )
    app.state.settings = settings
    app.state.engine = engine or make_engine(settings, metrics)
    app.state.metrics = metrics
    app.state.draining = False
    app.state.in_hand = app.state.arriving = 0
    app.state.out_of_time = asyncio.Event()
    app.state.failure = None
    app.state.stop_on_failure = False
    app.state.watches_loading = True
    app.state.all_counts = None
    _add_routes(app)
    add_docs(app)
    add_home(app)
    add_error_handlers(app)
    app.add_middleware(Gatekeeper, settings=settings.server)
    app.add_middleware(Unforeseen)
    app.add_middleware(AllowedPages, origins=settings.server.allowed_origins)
    app.add_middleware(RequestLog, metrics=metrics)
    app.add_middleware(ModelHeader, engine=app.state.engine, settings=settings)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    engine: Engine = state.engine
    state.analyzer = ShotAnalyzer(engine, state.settings.processing, state.metrics.stage)
    await engine.start()
    watcher = asyncio.create_task(_watch_loading(app)) if state.watches_loading else None
    try:
        yield
    finally:
        if watcher:
            watcher.cancel()
        await engine.close()
        state.analyzer.close()


async def _watch_loading(app: FastAPI) -> None:
    """Say when the server is healthy; stop it when the model can't be loaded."""
    engine: Engine = app.state.engine
    if not await until_loaded(engine):
        app.state.failure = engine.failure
        if app.state.stop_on_failure:
            signal.raise_signal(signal.SIGTERM)


ShotBody = Annotated[Any, Depends(read_shot)]
BatchBody = Annotated[Any, Depends(read_batch)]
Patient = Annotated[Patience, Depends(patience)]


def _add_routes(app: FastAPI) -> None:
    metrics: Metrics = app.state.metrics
    failures = problem_responses(401, 408, 413, 415, 422, 503)

    @app.head("/health", include_in_schema=False)
    @app.get("/health", tags=["health"], summary="Whether a shot could be analysed now", responses={503: HEALTH_503})
    async def health(response: Response) -> Health:
        """200 only when it could; else 503, and the status says why."""
        answer = _health(app)
        if answer.status != Status.HEALTHY.value:
            response.status_code = 503
            response.headers["Retry-After"] = RETRY_HEALTH
        return answer

    @app.head("/health/live", include_in_schema=False)
    @app.get("/health/live", tags=["health"], summary="Whether the process should be left running")
    async def live() -> dict[str, str]:
        """200 as long as it answers at all, also while the model is being loaded."""
        return {"status": "alive"}

    @app.post(
        "/analyze",
        tags=["shots"],
        summary="Analyse one shot",
        response_model_exclude_unset=True,
        responses=json_answer("How the shot feels", EXAMPLE_ANALYSIS) | failures | problem_responses(500),
        openapi_extra=json_body("Shot", EXAMPLE_SHOT),
        dependencies=[Depends(accept)],
    )
    async def analyze(request: Request, body: ShotBody, patience: Patient, *, explain: Explain = False) -> Analysis:
        """One shot in, one analysis out."""
        return await while_connected(request, _analyze(app, body, patience, explain=explain))

    @app.post(
        "/analyze_batch",
        tags=["shots"],
        summary="Analyse several shots",
        response_model_exclude_unset=True,
        responses=json_answer("What worked, and what did not", EXAMPLE_BATCH_ANALYSIS) | failures,
        openapi_extra=json_body("Batch", {"shots": [EXAMPLE_SHOT]}),
        dependencies=[Depends(accept)],
    )
    async def analyze_batch(
        request: Request, body: BatchBody, patience: Patient, *, explain: Explain = False
    ) -> BatchAnalysis:
        """Several shots in; those that worked and those that did not out. One bad shot costs no other."""
        shots = parse_batch(body, app.state.settings.processing.max_batch_size)
        return await while_connected(request, _analyze_all(app, shots, patience, explain=explain))

    @app.head("/metrics", include_in_schema=False)
    @app.get(
        "/metrics",
        tags=["health"],
        summary="Counters for Prometheus",
        response_class=PlainTextResponse,
        openapi_extra={"security": [{"bearer": []}]},
        responses=problem_responses(401),
    )
    async def show_metrics() -> Response:
        """Requests, shots and errors by outcome, the time of each stage, batches, tokens, memory, shots that wait."""
        all_counts = app.state.all_counts
        text = await all_counts() if all_counts else metrics.text(app.state.engine.queue_depth)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _analyze(app: FastAPI, value: Any, patience: Patience, *, explain: bool) -> Analysis:
    analyzer: ShotAnalyzer = app.state.analyzer
    metrics: Metrics = app.state.metrics
    deadline = time.time() + patience.seconds
    try:
        answer = await in_time(
            app.state, analyzer.analyze(parse_shot(value), explain=explain, deadline=deadline), patience
        )
    except QwenShotsError as error:
        metrics.shot(error.slug)
        raise
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        # Whatever it was, it must not cost the other shots of a batch.
        log.exception("unexpected error with a shot")
        metrics.shot(ShotFailed.slug)
        raise ShotFailed("an error that nobody foresaw; the server's log has it") from None
    metrics.shot("ok")
    # An unset field is left out of the answer; a set one, null or not, is shown.
    return answer if explain else Analysis(**answer.model_dump(exclude={"evidence"}))


async def _analyze_all(app: FastAPI, shots: Sequence[Any], patience: Patience, *, explain: bool) -> BatchAnalysis:
    """All shots at once; what can be told of each.

    Raises:
        Unavailable: the server could take none of them, so the whole batch should be sent again.
    """
    outcomes = await asyncio.gather(
        *(_analyze(app, shot, patience, explain=explain) for shot in shots), return_exceptions=True
    )
    errors = {index: _error(outcome) for index, outcome in enumerate(outcomes) if not isinstance(outcome, Analysis)}
    if len(errors) == len(shots) and all(isinstance(error, Unavailable) for error in errors.values()):
        raise errors[0]
    return BatchAnalysis(
        results=[outcome for outcome in outcomes if isinstance(outcome, Analysis)],
        errors=[_row(index, shot_id_of(shots[index]), error) for index, error in errors.items()],
    )


def _error(outcome: BaseException) -> QwenShotsError:
    """What is told of a shot without an analysis: one that was cancelled, say, must not be left out."""
    return outcome if isinstance(outcome, QwenShotsError) else ShotFailed("the work on it was cancelled")


def _row(index: int, shot_id: int | str | None, error: QwenShotsError) -> BatchError:
    return BatchError(
        index=index, shot_id=shot_id, type=TYPE_PREFIX + error.slug, title=error.title, detail=error.detail
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


if __name__ == "__main__":
    # multiprocessing has each process that it spawns run its parent's main file again, and this one brings the web
    # framework, which engines do without. Those that serve import it by its name.
    del __file__
    import server

    sys.exit(process.main(server.create_app))
