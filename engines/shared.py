"""An engine that lives in another process and is shared by several: what each of them sees, and what goes between.

The owner is `engines.host`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from engines.base import EngineInfo, ShotPictures, ShotReading, Status
from engines.channel import Channel
from engines.stations import Answer
from engines.watchdog import BEAT_SECONDS
from qwen_shots.errors import EngineLost, QueueFull, QwenShotsError
from qwen_shots.media import PictureFit


@dataclass(frozen=True, slots=True)
class State:
    """What an engine says of itself; the names are those of `engines.base.Engine`, `full` is the error's words."""

    info: EngineInfo
    status: Status = Status.LOADING
    failure: str | None = None
    fit: PictureFit | None = None
    queue_depth: int = 0
    full: str | None = None
    retry_after: int = 1


@dataclass(frozen=True, slots=True)
class Look:
    """Asks for a shot's answer."""

    number: int
    shot: ShotPictures


@dataclass(frozen=True, slots=True)
class Leave:
    """Nobody waits for that answer any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Said:
    """The answer."""

    number: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class TellCounts:
    """Asks a process for its counters; or, from a process, for those of all together."""

    number: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters in Prometheus' text format."""

    number: int
    text: bytes


@dataclass(frozen=True, slots=True)
class TellState:
    """Asks for the state as it is now."""

    number: int


@dataclass(frozen=True, slots=True)
class Told:
    """What was asked for came just before this."""

    number: int


@dataclass(frozen=True, slots=True)
class Alive:
    """The event loop of a process turns: told every `BEAT_SECONDS`."""


class SharedEngine:
    """Implements `engines.base.Engine` with the one at the other end of a pipe.

    Args:
        pipe: the way to the process that has the engine.
        model: the name that the configuration gives.
        own_counts: this process's counters, in Prometheus' text format.
    """

    def __init__(self, pipe: Connection, model: str, own_counts: Callable[[], bytes]) -> None:
        self._pipe = pipe
        self._own_counts = own_counts
        self._state = State(EngineInfo(model))
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._channel: Channel | None = None
        self._lost: EngineLost | None = None
        self._beating: asyncio.Task[None] | None = None

    @property
    def info(self) -> EngineInfo:
        """What the engine runs on."""
        return self._state.info

    @property
    def status(self) -> Status:
        """Whether it takes shots now."""
        return self._state.status

    @property
    def failure(self) -> str | None:
        """Why it can't run, once `status` is FAILED."""
        return self._state.failure

    @property
    def fit(self) -> PictureFit | None:
        """How large it sees pictures; None while it loads."""
        return self._state.fit

    @property
    def queue_depth(self) -> int:
        """Shots of all processes that wait."""
        return self._state.queue_depth

    @property
    def full(self) -> QueueFull | None:
        """Why no further shot can wait, as of a moment ago; `look` says it for certain."""
        full = self._state.full
        return None if full is None else QueueFull(full, self._state.retry_after)

    @property
    def retry_after(self) -> int:
        """Seconds until what waits now will be through."""
        return self._state.retry_after

    async def start(self) -> None:
        """Begin to listen. The engine is started by the process that has it."""
        self._channel = Channel(self._pipe, "engine", self._on_message, self._on_lost)
        self._beating = asyncio.create_task(self._beat())

    async def look(self, shot: ShotPictures) -> ShotReading:
        """Look at one shot; see `Engine.look`."""
        number = next(self._numbers)
        try:
            answer: Answer = await self._ask(number, Look(number, shot))
        except asyncio.CancelledError:
            self._post(Leave(number))
            raise
        if isinstance(answer, QwenShotsError):
            raise answer
        return answer

    async def counts(self) -> bytes:
        """The counters of all processes together, in Prometheus' text format."""
        number = next(self._numbers)
        text: bytes = await self._ask(number, TellCounts(number))
        return text

    async def refresh(self) -> None:
        """Learn the state as it is now, rather than a moment ago."""
        number = next(self._numbers)
        await self._ask(number, TellState(number))

    async def close(self) -> None:
        """Wait for the shots in hand, then let the pipe go."""
        while self._waiting:
            await asyncio.wait(set(self._waiting.values()), timeout=1)
        if self._beating:
            self._beating.cancel()
        if self._channel:
            self._channel.close()

    async def _beat(self) -> None:
        while True:
            self._post(Alive())
            await asyncio.sleep(BEAT_SECONDS)

    async def _ask(self, number: int, message: Look | TellCounts | TellState) -> Any:
        if self._lost:  # nobody is there to answer
            raise self._lost
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._post(message)
            return await answer
        finally:
            del self._waiting[number]

    def _post(self, message: object) -> None:
        assert self._channel is not None, "not started"
        self._channel.post(message)

    def _on_message(self, message: Any) -> None:
        match message:
            case State():
                self._state = message
            case Said(number, answer) | Counts(number, answer):
                self._settle(number, answer)
            case Told(number):
                self._settle(number, None)
            case TellCounts(number):
                self._post(Counts(number, self._own_counts()))

    def _settle(self, number: int, answer: Any) -> None:
        if number in self._waiting and not self._waiting[number].done():
            self._waiting[number].set_result(answer)

    def _on_lost(self) -> None:
        self._lost = EngineLost("the server is being stopped")
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(self._lost)
