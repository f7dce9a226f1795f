"""Await what closes connections when it is cancelled: it is left the time to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


async def apart(work: Callable[[], Awaitable[T]]) -> T:
    """Await work in a task of its own, which `Task.cancel` of the caller's task does not reach.

    A caller that is cancelled, once or more often, cancels the work's scope, and goes on when the work has ended.

    httpcore (1.0.9) tidies up within shielded scopes of anyio. `Task.cancel` goes through those: of several dead
    connections that a request had to close, the first was closed when the request was cancelled, and the others stayed
    open, in no pool; and a request that was cancelled twice went on at the server.
    """
    answers: list[T] = []
    errors: list[Exception] = []

    async def run() -> None:
        try:
            answers.append(await work())
        except Exception as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
    if errors:
        raise errors[0]
    return answers[0]
