"""What a request with shots passes on its way in: counted as work in hand, decoded, dropped when its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Header, Request, Response
from starlette.datastructures import Headers, State
from starlette.requests import ClientDisconnect

from engines.base import Engine, Status
from problems import UnsupportedCoding, UnsupportedMediaType
from qwen_shots.errors import Draining, EngineLoading, QueueFull, ShotFailed, TooSlow
from serving.json_body import JsonReader

Answer = TypeVar("Answer")

MAX_DIGITS = 9  # of seconds that are read as a number at all

STOPPING = "the server is being stopped; send the shot to another or later"


async def read_shot(request: Request) -> Any:
    """The decoded body of a request with one shot. Errors as for `read_batch`."""
    return await _read_json(request, is_batch=False)


async def read_batch(request: Request) -> Any:
    """The decoded body of a request with several shots.

    Raises:
        UnsupportedMediaType: it is not declared as JSON, or it is compressed.
        InvalidInput: it is not JSON, or holds more than a request may; so far as that is known before it is all in.
        Draining: the server is being stopped and `server.drain_timeout` was over before the body was in.
    """
    return await _read_json(request, is_batch=True)


async def _read_json(request: Request, *, is_batch: bool) -> Any:
    _check_media_type(request.headers)
    state = request.app.state
    reader = JsonReader(state.settings.processing.max_batch_size, is_batch=is_batch)
    state.arriving += 1
    try:
        with state.metrics.stage("receive"):
            await _before(state.out_of_time.wait(), _receive(request, reader), Draining(STOPPING))
        with state.metrics.stage("parse"):
            return await asyncio.to_thread(reader.finish)  # copies pictures
    finally:
        state.arriving -= 1


async def _receive(request: Request, reader: JsonReader) -> None:
    async for piece in request.stream():
        reader.feed(piece)


def _check_media_type(headers: Headers) -> None:
    kinds = {kind.partition(";")[0].strip().lower() for kind in headers.getlist("content-type")}
    if kinds != {"application/json"}:
        raise UnsupportedMediaType("send the body as JSON, with the header Content-Type: application/json")
    codings = ",".join(headers.getlist("content-encoding")).lower().split(",")  # several lines are one list
    if not {coding.strip() for coding in codings} <= {"", "identity"}:
        raise UnsupportedCoding("send the body without Content-Encoding; pictures are compressed already")


async def accept(request: Request) -> AsyncIterator[None]:
    """Count the request as work in hand, which a stop waits for; refuse it when it can't be taken.

    Raises:
        Draining: the server is being stopped.
        EngineLoading: the model is still being loaded.
        QueueFull: as many shots as may wait do so already, those counted that are still being read and decoded.
    """
    state = request.app.state
    if state.draining:
        raise Draining(STOPPING)
    engine: Engine = state.engine
    if engine.status is Status.LOADING:
        raise EngineLoading("the model is still being loaded")
    if full := engine.full:
        raise full
    if state.arriving + state.analyzer.preparing + engine.queue_depth >= state.settings.server.max_queue_shots:
        raise QueueFull("more shots are coming in than may wait (server.max_queue_shots)", engine.retry_after)
    state.in_hand += 1
    try:
        yield
    finally:
        state.in_hand -= 1


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request may take once it has come in.

    Attributes:
        seconds: so long.
        source: who says so.
    """

    seconds: int
    source: str


def patience(
    request: Request,
    response: Response,
    prefer: Annotated[
        str, Header(description="`wait=5`: answer within 5 seconds or not at all; goes before what may take longer")
    ] = "",
) -> Patience:
    """The shorter of `server.request_timeout` and the client's own `Prefer: wait=SECONDS` (RFC 7240, section 4.3)."""
    most: int = request.app.state.settings.server.request_timeout
    wait = _wait_in(",".join([prefer, *request.headers.getlist("prefer")[1:]]))  # several lines are one list
    if wait is None or wait > most:
        return Patience(most, "server.request_timeout")
    response.headers["Preference-Applied"] = f"wait={wait}"
    return Patience(wait, "Prefer: wait")


def _wait_in(prefer: str) -> int | None:
    """The first `wait` of at least a second. What can't be honoured is ignored, as the RFC has it."""
    for preference in prefer.split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        seconds = value.strip().strip('"')
        if name.strip().lower() == "wait" and seconds.isascii() and seconds.isdecimal() and len(seconds) <= MAX_DIGITS:
            return int(seconds) or None
    return None


async def in_time(state: State, work: Coroutine[Any, Any, Answer], patience: Patience) -> Answer:
    """Await `work`, but no longer than a request or a stop may take.

    Raises:
        TooSlow: the patience is over.
        Draining: the server is being stopped and `server.drain_timeout` is over.
    """
    try:
        return await asyncio.wait_for(_before(state.out_of_time.wait(), work, Draining(STOPPING)), patience.seconds)
    except asyncio.TimeoutError:
        late = f"it was not answered within {patience.seconds} s ({patience.source})"
        raise TooSlow(late, state.engine.retry_after) from None


async def while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Await `work`; give it up when the client goes away, so that no shot is looked at for nobody.

    Raises:
        ClientDisconnect: the client went away first.
    """
    return await _before(_gone(request), work, ClientDisconnect())


async def _before(end: Coroutine[Any, Any, Any], work: Coroutine[Any, Any, Answer], error: Exception) -> Answer:
    """Await `work`; when `end` comes first, give it up and raise `error`."""
    working = asyncio.create_task(work)
    tasks: list[asyncio.Task[Any]] = [working, asyncio.create_task(end)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise error
        if working.cancelled():  # by another than us, who would have been told above
            raise ShotFailed("the work on it was cancelled; the server's log may say why")
        return working.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
