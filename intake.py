"""What a request with shots passes on its way in: counted as work in hand, decoded, dropped when its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from engines.base import Status
from problems import UnsupportedMediaType
from qwen_shots.errors import Draining, EngineLoading
from wire import parse_json

Answer = TypeVar("Answer")


async def read_json(request: Request) -> Any:
    """The decoded body. Big bodies are decoded on a thread, so that /health answers meanwhile."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType("send the body as JSON, with the header Content-Type: application/json")
    return await asyncio.to_thread(parse_json, await request.body())


async def accept(request: Request) -> AsyncIterator[None]:
    """Count the request as work in hand, which a stop waits for; refuse it when the server is being stopped."""
    state = request.app.state
    if state.draining:
        raise Draining("the server is being stopped; send the shot to another or later")
    if state.engine.status is Status.LOADING:
        raise EngineLoading("the model is still being loaded")
    state.in_hand += 1
    try:
        yield
    finally:
        state.in_hand -= 1


async def while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """Await `work`; give it up when the client goes away, so that no shot is looked at for nobody.

    Raises:
        ClientDisconnect: the client went away first.
    """
    working = asyncio.create_task(work)
    tasks: list[asyncio.Task[Any]] = [working, asyncio.create_task(_gone(request))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
