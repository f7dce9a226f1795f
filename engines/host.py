"""One engine for several processes: each has a pipe, and sees it through `engines.shared`."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from engines.base import Engine, ShotPictures
from engines.channel import Channel
from engines.shared import Alive, Counts, Leave, Look, Said, State, TellCounts, TellState, Told
from engines.stations import Answer
from qwen_shots.errors import QwenShotsError, ShotFailed

log = logging.getLogger(__name__)

# How old the state may be that the processes see.
STATE_SECONDS = 0.03
# Of a process that is stuck longer, what it told last is counted.
COUNTS_SECONDS = 1.0

Sum = Callable[[Sequence[bytes], Sequence[bytes]], bytes]
"""Of the counters of processes that run, and of those that have ended."""


class EngineHost:
    """Answers the processes that share an engine.

    Args:
        engine: looks at their shots; started and closed by somebody else.
        own_counts: this process's counters.
        add_up: makes one text of those of several processes.
    """

    def __init__(self, engine: Engine, own_counts: Callable[[], bytes], add_up: Sum) -> None:
        self._engine = engine
        self._own_counts = own_counts
        self._add_up = add_up
        self._guests: set[Guest] = set()
        self._ended: tuple[bytes, ...] = ()  # a total that falls would be taken for a restart of the server

    def welcome(self, pipe: Connection, name: str) -> Guest:
        """Serve one more process, until its end of the pipe is closed."""
        guest = Guest(
            self._engine,
            pipe,
            name,
            on_lost=self._on_lost,
            state=self._state,
            tell_all_counts=self._tell_all_counts,
        )
        self._guests.add(guest)
        guest.channel.post(self._state())
        return guest

    async def tell_state(self) -> None:
        """Tell everybody what the engine's state is, whenever it changes. Never ends."""
        told = self._state()
        while True:
            await asyncio.sleep(STATE_SECONDS)
            state = self._state()
            if state != told:
                for guest in self._guests:
                    guest.channel.post(state)
                told = state

    def _state(self) -> State:
        engine = self._engine
        return State(
            info=engine.info,
            status=engine.status,
            failure=engine.failure,
            fit=engine.fit,
            queue_depth=engine.queue_depth,
            full=engine.full.detail if engine.full else None,
            retry_after=engine.retry_after,
        )

    def _on_lost(self, guest: Guest) -> None:
        self._guests.discard(guest)
        if guest.told:
            self._ended = (self._add_up([], [*self._ended, guest.told]),)

    async def _tell_all_counts(self, asking: Guest, number: int) -> None:
        await asyncio.gather(*(guest.ask_counts() for guest in self._guests))
        # Asked for now: who has ended meanwhile is among those, and counted once.
        told = [self._own_counts(), *(guest.told for guest in self._guests if guest.told)]
        asking.channel.post(Counts(number, self._add_up(told, self._ended)))


class Guest:
    """One process that shares the engine.

    Attributes:
        gone: set when its end of the pipe is closed.
        told: the counters that it told last; None before.
        beats: signs of life that it has given.
    """

    def __init__(
        self,
        engine: Engine,
        pipe: Connection,
        name: str,
        *,
        on_lost: Callable[[Guest], None],
        state: Callable[[], State],
        tell_all_counts: Callable[[Guest, int], Any],
    ) -> None:
        self._engine = engine
        self._state = state
        self._tell_all_counts = tell_all_counts
        self._looking: dict[int, asyncio.Task[None]] = {}
        self._numbers = itertools.count()
        self._telling: dict[int, asyncio.Future[bytes]] = {}
        self._on_lost = on_lost
        self._others: set[asyncio.Task[None]] = set()
        self.gone = asyncio.Event()
        self.told: bytes | None = None
        self.beats = 0
        self.channel = Channel(pipe, name, self._on_message, self._leave)

    async def ask_counts(self) -> None:
        """Have it tell its counters; `told` stays what it was where it does not answer."""
        number = next(self._numbers)
        told = self._telling[number] = asyncio.get_running_loop().create_future()
        self.channel.post(TellCounts(number))
        try:
            self.told = await asyncio.wait_for(told, COUNTS_SECONDS)
        except asyncio.TimeoutError:
            log.warning("a process that reads requests does not tell its counters")
        finally:
            del self._telling[number]

    def _on_message(self, message: Any) -> None:
        match message:
            case Look(number, shot):
                task = self._looking[number] = asyncio.create_task(self._look(number, shot))
                task.add_done_callback(lambda _: self._looking.pop(number, None))
            case Leave(number):
                if number in self._looking:
                    self._looking[number].cancel()
            case Alive():
                self.beats += 1
            case TellState(number):
                self.channel.post(self._state())
                self.channel.post(Told(number))
            case TellCounts(number):
                telling = asyncio.create_task(self._tell_all_counts(self, number))
                self._others.add(telling)
                telling.add_done_callback(self._others.discard)
            case Counts(number, text):
                if number in self._telling and not self._telling[number].done():
                    self._telling[number].set_result(text)

    async def _look(self, number: int, shot: ShotPictures) -> None:
        answer: Answer
        try:
            answer = await self._engine.look(shot)
        except QwenShotsError as error:
            answer = error
        except Exception:
            log.exception("unexpected error with a shot")
            answer = ShotFailed("an error that nobody foresaw; the server's log has it")
        self.channel.post(Said(number, answer))

    def _leave(self) -> None:
        """Its shots are looked at for nobody."""
        for task in (*self._looking.values(), *self._others):
            task.cancel()
        self.channel.close()
        self.gone.set()
        self._on_lost(self)
