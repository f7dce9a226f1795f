"""The server's hold on one engine process: start it, hand it batches, notice when it dies."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import logging
import multiprocessing
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import anyio

from engines import worker
from engines.arena import Arena
from engines.base import Observer, ShotPictures
from engines.failures import FailureStreak
from engines.messages import receive, send
from engines.probe import PROBE_TOKENS, probe_shot
from engines.stations import Answer
from engines.watchdog import BEAT_SECONDS, Beat, Watchdog
from engines.worker import Answers, Crowded, Failed, Hungry, Ready, Work
from qwen_shots.errors import CannotLoad, EngineLost, QwenShotsError
from settings import Settings

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0
# A batch is sized to be short. One that takes this long is stuck, whatever the watchdog thinks of it.
BATCH_SECONDS = 600.0
# An engine that has nothing to do proves so often that it could, but gives no more than this share of its time to it.
PROBE_SECONDS = 5.0
PROBE_SHARE = 0.05


class Replica:
    """One engine process and the pipe to it. Made and used on the event loop's thread.

    Args:
        settings: the whole configuration.
        rank: which engine this is, from 0.
        observer: is told what memory it holds.
        arena: where its pictures may lie; None: they all go through the pipe.
    """

    def __init__(self, settings: Settings, rank: int, observer: Observer, arena: Arena | None = None) -> None:
        self._rank = rank
        self._arena = arena
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        # spawn: a forked child would inherit locks and CUDA's state.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=worker.main, args=(theirs, settings, rank, arena), name=f"engine-{rank}", daemon=True
        )
        self._theirs: Connection | None = theirs
        self._spawning: asyncio.Task[None] | None = None
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[tuple[Answer, ...]]] = {}
        self._ready: asyncio.Future[Ready] = self._loop.create_future()
        self._lost = asyncio.Event()
        self._watchdog = Watchdog()
        self._sending = asyncio.Lock()
        self._answered = 0.0
        self._batch_tokens = 1
        self._streak = FailureStreak()
        self._handed: dict[int, Sequence[ShotPictures]] = {}  # of shots that came from clients; a probe proves nothing
        self._hopeless = asyncio.Event()
        self._turn = asyncio.Semaphore(1)
        self._has_turn: set[int] = set()

    async def start(self, patience: float | None = None) -> Ready:
        """Spawn the process and wait until the model has answered a first shot.

        Args:
            patience: seconds that this may take; None: as long as it does.

        Raises:
            CannotLoad: the model can't be loaded, or the process not be started.
            EngineLost: the process died while it loaded, or took too long.
        """
        self._spawning = asyncio.create_task(asyncio.to_thread(self._spawn))
        try:
            await asyncio.shield(self._spawning)  # a thread goes on when its task is cancelled; `close` waits for it
        except OSError as error:
            raise CannotLoad(f"the engine process can't be started: {error.strerror}") from None
        threading.Thread(target=self._read, name=f"{self._process.name}-reader", daemon=True).start()
        try:
            # Not `asyncio.wait_for`: before Python 3.12 it forgets a cancellation that comes together with the result.
            with anyio.fail_after(patience):
                return await self._ready
        except TimeoutError:
            self._process.kill()
            raise EngineLost(f"the engine did not load within {patience:.0f} s") from None

    def _spawn(self) -> None:
        with _signals_held_back():
            self._process.start()
        # At exit Python would ask the process to end by SIGTERM, which it ignores, and wait for ever.
        atexit.register(self._process.kill)
        assert self._theirs is not None
        self._theirs.close()  # else the pipe would not end when the child does
        self._theirs = None

    @property
    def budget(self) -> int:
        """Tokens that the next batch may hold. After a batch that failed it is one shot, so that few more are lost."""
        return 1 if self._streak.begun else self._batch_tokens

    async def wait_turn(self) -> None:
        """Wait until the process would use a batch: it has none, or has most of it behind it. Follow it up by `run`."""
        await self._turn.acquire()

    def _pass_turn(self, number: int) -> None:
        if number in self._has_turn:
            self._has_turn.remove(number)
            self._turn.release()

    async def run(self, shots: Sequence[ShotPictures], tokens: int, *, alone: bool = False) -> tuple[Answer, ...]:
        """Look at one batch, of so many tokens, when it is its turn.

        Args:
            shots: of the batch.
            tokens: of all of them.
            alone: the process has no other batch meanwhile, so that none but this one can end it.

        Raises:
            EngineLost: the process died before it answered, or was ended because it did not answer in time.
        """
        try:
            with anyio.fail_after(BATCH_SECONDS):  # not `asyncio.wait_for`, as in `start`
                number = next(self._numbers)
                self._handed[number] = shots
                if not alone:
                    self._has_turn.add(number)
                    return await self._exchange(number, shots, tokens)
                while others := [other for other in self._waiting.values() if not other.done()]:
                    await asyncio.wait(others)
                answers = await self._exchange(number, shots, tokens)
                self._turn.release()  # not before, however hungry it is
                return answers
        except TimeoutError:
            log.error("%s did not answer within %.0f s and is ended", self._process.name, BATCH_SECONDS)  # noqa: TRY400
            self._process.kill()
            raise EngineLost("the engine hung; it is being started again") from None

    def _judge(self, number: int, answers: Sequence[Answer]) -> None:
        """Learn from the answers of a batch."""
        if not all(isinstance(answer, QwenShotsError) for answer in answers):
            self._answered = self._loop.time()
        if shots := self._handed.pop(number, None):
            self._streak.note(shots, answers)
        if self._streak.hopeless:
            self._hopeless.set()

    async def _exchange(self, number: int, shots: Sequence[ShotPictures], tokens: int) -> tuple[Answer, ...]:
        answer: asyncio.Future[tuple[Answer, ...]] = self._loop.create_future()
        self._waiting[number] = answer
        self._watchdog.begin(number, tokens)
        try:
            async with self._sending:
                await asyncio.to_thread(send, self._pipe, Work(number, tuple(shots), tokens), self._arena)
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
        """Follow the process until it is stuck, or answers with nothing but errors; then end it.

        Raises:
            EngineLost: always; it says why.
        """
        signs = (self._until_stuck(), self._until_disproved(), self._until_hopeless())
        tasks = [asyncio.create_task(sign) for sign in signs]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        why = done.pop().result()
        self._process.kill()
        raise EngineLost(why)

    async def _until_hopeless(self) -> str:
        await self._hopeless.wait()
        return "it failed on every shot of several batches in a row"

    async def _until_stuck(self) -> str:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if why := self._watchdog.look():
                return why

    async def _until_disproved(self) -> str:
        """Have a shot looked at whenever none was lately."""
        ready = self._ready.result()
        tokens = PROBE_TOKENS + ready.text_tokens[0]
        pause = PROBE_SECONDS
        while True:
            await asyncio.sleep(max(0.1, self._answered + pause - self._loop.time()))
            if self._waiting or self._loop.time() < self._answered + pause:
                continue
            began = self._loop.time()
            (answer,) = await self._exchange(next(self._numbers), [probe_shot(ready.pictures)], tokens)
            if isinstance(answer, QwenShotsError):
                return f"it can't answer a probe: {answer.detail}"
            pause = max(PROBE_SECONDS, (self._loop.time() - began) / PROBE_SHARE)

    async def close(self) -> None:
        """End the process, by force if it does not go."""
        if self._spawning:
            await asyncio.gather(self._spawning, return_exceptions=True)
        if self._process.pid is None:
            return
        if self._waiting or not self._ready.done() or self._ready.cancelled():
            # Nobody waits for this batch or this load any more, and until it is done no message is read: one to a stuck
            # process could block the server.
            self._process.kill()
        else:
            with contextlib.suppress(OSError):
                send(self._pipe, None)
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
                message = receive(self._pipe)
            except (EOFError, OSError):
                message = None
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._on_message, message)
            if message is None:
                return

    def _on_message(self, message: Any) -> None:
        match message:
            case Ready():
                self._answered = self._loop.time()  # it has answered a shot to itself
                self._batch_tokens = message.batch_tokens
                self._watchdog.on_cpu = message.info.device == "cpu"
                _settle(self._ready, message)
            case Failed(detail):
                _settle(self._ready, CannotLoad(detail))
            case Beat():
                self._watchdog.on_beat(message)
                if message.gpu_bytes is not None:
                    self._observer.holds(self._rank, message.gpu_bytes)
            case Hungry(number):
                self._pass_turn(number)
            case Crowded(tokens):
                self._batch_tokens = max(1, min(self._batch_tokens, tokens // 2))
                log.warning(
                    "%s: a batch of %d tokens did not fit into the GPU's memory; from now on %d a batch",
                    self._process.name,
                    tokens,
                    self._batch_tokens,
                )
            case Answers(number, answers, spent):
                self._judge(number, answers)  # before the next batch is taken: it is smaller where this one failed
                self._pass_turn(number)
                self._watchdog.end(number, spent)
                _settle(self._waiting.pop(number), answers)
            case None:
                lost = EngineLost("the engine stopped; it is being started again")
                _settle(self._ready, lost)
                for waiting in self._waiting.values():
                    _settle(waiting, lost)
                self._waiting.clear()
                self._lost.set()


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """A process that is started inside begins without Ctrl-C and SIGTERM, which a terminal or systemd sends to all.

    The worker ignores them, but its imports take a second before it can say so.
    """
    resource_tracker.ensure_running()  # when it has to be started, it lets the signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, worker.IGNORED_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
