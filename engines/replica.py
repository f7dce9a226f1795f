"""The server's hold on one engine process: start it, hand it batches, notice when it dies."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import logging
import multiprocessing
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from engines import worker
from engines.base import ShotPictures
from engines.worker import Answer, Answers, Beat, Failed, Ready, Work
from qwen_shots.errors import CannotLoad, EngineLost
from settings import Settings

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0
# A batch is sized to be short. One that takes this long is stuck in a kernel or a driver, and only the process's end
# frees it.
BATCH_SECONDS = 600.0
# Much earlier than that, a process tells by its beats that it is stuck: none come, or a batch is in hand and it uses no
# processor time, which a batch that merely takes long does. Counted in looks, not in seconds: when this whole machine
# was asleep, that is one look.
LOOK_SECONDS = 1.0
STUCK_LOOKS = 4
LEAST_CPU_SECONDS = 0.005  # between two beats; the beats alone use a tenth of that


class Replica:
    """One engine process and the pipe to it. Made and used on the event loop's thread."""

    def __init__(self, settings: Settings, rank: int) -> None:
        self._loop = asyncio.get_running_loop()
        # spawn: a forked child would inherit locks and CUDA's state.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=worker.main, args=(theirs, settings, rank), name=f"engine-{rank}", daemon=True
        )
        self._theirs: Connection | None = theirs
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[tuple[Answer, ...]]] = {}
        self._ready: asyncio.Future[Ready] = self._loop.create_future()
        self._lost = asyncio.Event()
        self._beat: Beat | None = None

    async def start(self) -> Ready:
        """Spawn the process and wait until the model has answered a first shot.

        Raises:
            CannotLoad: the model can't be loaded, or the process not be started.
            EngineLost: the process died while it loaded.
        """
        try:
            await asyncio.to_thread(self._process.start)
        except OSError as error:
            raise CannotLoad(f"the engine process can't be started: {error.strerror}") from None
        # At exit Python would ask the process to end by SIGTERM, which it ignores, and wait for ever.
        atexit.register(self._process.kill)
        assert self._theirs is not None
        self._theirs.close()  # else the pipe would not end when the child does
        self._theirs = None
        threading.Thread(target=self._read, name=f"{self._process.name}-reader", daemon=True).start()
        return await self._ready

    async def run(self, shots: Sequence[ShotPictures]) -> tuple[Answer, ...]:
        """Look at one batch.

        Raises:
            EngineLost: the process died before it answered, or was ended because it did not answer in time.
        """
        try:
            return await asyncio.wait_for(self._exchange(shots), BATCH_SECONDS)
        except asyncio.TimeoutError:
            log.error("%s did not answer within %.0f s and is ended", self._process.name, BATCH_SECONDS)  # noqa: TRY400
            self._process.kill()
            raise EngineLost("the engine hung; it is being started again") from None

    async def _exchange(self, shots: Sequence[ShotPictures]) -> tuple[Answer, ...]:
        number = next(self._numbers)
        answer: asyncio.Future[tuple[Answer, ...]] = self._loop.create_future()
        self._waiting[number] = answer
        try:
            await asyncio.to_thread(self._pipe.send, Work(number, tuple(shots)))
        except (OSError, ValueError):
            self._waiting.pop(number, None)
            raise EngineLost("the engine stopped; it is being started again") from None
        answers = await answer
        if len(answers) != len(shots):
            # Nobody knows which answer is whose.
            self._process.kill()
            raise EngineLost("the engine answered for another number of shots; it is being started again")
        return answers

    async def watch(self) -> None:
        """Look at the process's beats, for ever; end it when it is stuck."""
        seen, looks = self._beat, 0
        while looks < STUCK_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            looks = 0 if self._moved_since(seen) else looks + 1
            seen = self._beat
        log.error("%s is stuck and is ended", self._process.name)
        self._process.kill()

    def _moved_since(self, seen: Beat | None) -> bool:
        if self._beat is None or self._beat is seen:
            return False
        used = self._beat.cpu_seconds - (seen.cpu_seconds if seen else 0)
        return not self._waiting or used >= LEAST_CPU_SECONDS

    async def close(self) -> None:
        """End the process, by force if it does not go."""
        if self._process.pid is None:
            return
        if self._waiting:
            self._process.kill()  # nobody waits for this batch any more, and a stuck process reads no message
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        await asyncio.to_thread(self._process.join, CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)
        atexit.unregister(self._process.kill)

    async def wait_lost(self) -> None:
        """Return when the process is gone."""
        await self._lost.wait()

    @property
    def pid(self) -> int | None:
        """The process's id, for tests and the log."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How the process ended, once it is closed; negative: the signal that ended it."""
        return self._process.exitcode

    def _read(self) -> None:
        """On a thread of its own: pass messages to the event loop until the process is gone."""
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                message = None
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._on_message, message)
            if message is None:
                return

    def _on_message(self, message: Any) -> None:
        match message:
            case Ready():
                _settle(self._ready, message)
            case Failed(detail):
                _settle(self._ready, CannotLoad(detail))
            case Beat():
                self._beat = message
            case Answers(number, answers):
                _settle(self._waiting.pop(number), answers)
            case None:
                lost = EngineLost("the engine stopped; it is being started again")
                _settle(self._ready, lost)
                for waiting in self._waiting.values():
                    _settle(waiting, lost)
                self._waiting.clear()
                self._lost.set()


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
