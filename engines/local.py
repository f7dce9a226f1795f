"""The engine on this machine: one process for each GPU (or one for the CPU), fed from one queue and kept alive."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from engines.arena import Arena
from engines.base import EngineInfo, NoObserver, Observer, ShotPictures, ShotReading, Status
from engines.pixels import fit_shot, token_count
from engines.replica import Replica
from engines.scheduler import Pending, ShotQueue
from engines.worker import Ready
from model_loader import PictureSpec
from qwen_shots.errors import EngineLoading, EngineLost, QueueFull, QwenShotsError
from qwen_shots.fusion import KEY_FRAMES
from qwen_shots.media import PictureFit
from settings import Settings

log = logging.getLogger(__name__)

FIRST_RESTART_SECONDS = 1.0
LAST_RESTART_SECONDS = 30.0
# An engine that is started again may take this long, or so many times what the first one took.
LEAST_LOAD_SECONDS = 120.0
LOAD_PATIENCE = 5.0
# One batch is being looked at while the next is on its way.
LANES = 2


class LocalEngine:
    """Implements `engines.base.Engine` with processes of this machine."""

    def __init__(self, settings: Settings, observer: Observer | None = None) -> None:
        self._settings = settings
        self._observer = observer or NoObserver()
        self._queue = ShotQueue(settings.server.max_queue_shots, settings.server.max_queue_tokens, observer)
        self._info = EngineInfo(settings.model.name)
        self._arena = Arena()
        self._first: Ready | None = None
        self._replicas: dict[int, Replica] = {}
        self._ready: set[int] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._failure: str | None = None
        self._load_patience: float | None = None  # a first load may take as long as a slow disk needs
        self._in_hand: set[asyncio.Future[ShotReading]] = set()

    @property
    def info(self) -> EngineInfo:
        """What the engine runs on."""
        return self._info

    @property
    def pictures(self) -> PictureSpec | None:
        """How the model wants its pictures; None while it loads."""
        return self._first.pictures if self._first else None

    @property
    def failure(self) -> str | None:
        """Why it can't run, once `status` is FAILED."""
        return self._failure

    @property
    def status(self) -> Status:
        """HEALTHY only when every replica is."""
        if self._failure:
            return Status.FAILED
        if self._first is None:
            return Status.LOADING
        return Status.HEALTHY if len(self._ready) == len(self._keepers) else Status.DEGRADED

    @property
    def fit(self) -> PictureFit | None:
        """How large the model sees pictures; None while it loads."""
        return self._first.pictures.fit(self._settings.model.max_frame_tokens) if self._first else None

    @property
    def queue_depth(self) -> int:
        """Shots that wait."""
        return len(self._queue)

    @property
    def full(self) -> QueueFull | None:
        """Why no further shot can wait; None while one can."""
        return self._queue.full

    @property
    def retry_after(self) -> int:
        """Seconds until what waits now will be through."""
        return self._queue.retry_after

    @property
    def pids(self) -> list[int]:
        """The engine processes' ids."""
        return [replica.pid for replica in self._replicas.values() if replica.pid]

    async def start(self) -> None:
        """Begin to load; the first replica's plan says how many others there are."""
        self._keepers.append(asyncio.create_task(self._keep(0)))

    async def look(self, shot: ShotPictures) -> ShotReading:
        """Look at one shot; see `Engine.look`."""
        if self._first is None:
            raise EngineLoading("the model is still being loaded")
        if not self._ready:
            raise EngineLost("the engine stopped; it is being started again")
        # From here on nobody holds the pictures as they came.
        shot = await asyncio.to_thread(self._fit, shot, self._first.pictures)
        answer = self._queue.put(shot, _tokens(shot, self._first))
        self._in_hand.add(answer)
        answer.add_done_callback(self._in_hand.discard)
        return await answer

    async def close(self) -> None:
        """Finish the shots in hand, then end the processes."""
        while self._in_hand and self._ready:
            await asyncio.wait(set(self._in_hand), timeout=1)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(replica.close() for replica in self._replicas.values()))
        self._queue.fail_all(EngineLost("the server is being stopped"))
        self._replicas.clear()
        self._ready.clear()
        self._arena.close()

    def _fit(self, shot: ShotPictures, spec: PictureSpec) -> ShotPictures:
        fitted = fit_shot(shot, spec, self._settings.model.max_frame_tokens)
        return replace(fitted, pictures=tuple(map(self._arena.keep, fitted.pictures)))

    async def _keep(self, rank: int) -> None:
        """Keep one replica running: start, serve, and start again when it dies."""
        pause = FIRST_RESTART_SECONDS
        while True:
            replica: Replica | None = None
            try:
                replica = self._replicas[rank] = Replica(self._settings, rank, self._observer, self._arena)
                await self._live(replica, rank)
            except Exception as error:
                # Also what nobody foresaw, such as no file left for a pipe: else this engine would never come back.
                came_up = rank in self._ready
                # Before all else: a process may take long to end, and /health must not wait for that.
                self._ready.discard(rank)
                self._queue.servers = len(self._ready)
                if replica:
                    await replica.close()
                if self._first is None:
                    self._failure = _died(replica) if replica and isinstance(error, EngineLost) else _why(error)
                    return
                self._observer.lost()
                if not came_up and not self._ready:
                    # It may never come back, so nobody waits for it.
                    self._queue.fail_all(EngineLost("the engine stopped and could not be started again yet"))
                pause = FIRST_RESTART_SECONDS if came_up else pause
                ended = "" if replica is None else f", exit code {replica.exit_code}"
                log.error(  # noqa: TRY400 - a stack says nothing here
                    "engine %d stopped (%s%s); starting it again in %.0f s", rank, _why(error), ended, pause
                )
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_RESTART_SECONDS)

    async def _live(self, replica: Replica, rank: int) -> None:
        """Start a replica and serve until it is lost, which raises EngineLost, or CannotLoad where it never came up."""
        began = time.monotonic()
        ready = await replica.start(self._load_patience)
        took = time.monotonic() - began
        self._load_patience = max(LEAST_LOAD_SECONDS, LOAD_PATIENCE * took, self._load_patience or 0)
        self._on_ready(rank, ready)
        await self._serve_until_lost(replica)

    def _on_ready(self, rank: int, ready: Ready) -> None:
        if self._first is None:
            self._open_arena(ready)
            self._first, self._info = ready, ready.info
            others = range(1, ready.replicas)
            self._keepers += [asyncio.create_task(self._keep(other)) for other in others]
        self._ready.add(rank)
        self._queue.servers = len(self._ready)
        log.info("engine %d is ready on %s, %d tokens a batch", rank, ready.info.device, ready.batch_tokens)

    def _open_arena(self, ready: Ready) -> None:
        """Room for all shots that may wait or be in an engine's hands; that for as many as are then needed lasts."""
        spec, server = ready.pictures, self._settings.server
        most_tokens = spec.max_tokens(self._settings.model.max_frame_tokens)
        a_batch = ready.batch_tokens // most_tokens + KEY_FRAMES
        lasting = ready.replicas * (LANES + 1) * a_batch
        self._arena.open(KEY_FRAMES * server.max_queue_shots + lasting, most_tokens * spec.factor**2 * 3, lasting)

    async def _serve_until_lost(self, replica: Replica) -> None:
        """Serve, and notice a death also while there is nothing to do.

        Raises:
            EngineLost: always; it says why.
        """
        held: list[list[Pending]] = []
        lanes = [self._serve(replica, held) for _ in range(LANES)]
        tasks = [asyncio.create_task(work) for work in (*lanes, replica.wait_lost(), replica.watch())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # Whatever went wrong, nobody may wait for ever. Not before all lanes have ended: one that still waits for
            # shots would hand these to the engine that has just been lost.
            self._give_back(held)
        raise _loss(done)

    def _give_back(self, held: Sequence[list[Pending]]) -> None:
        """The batch that came first is suspected; the one behind it was not begun."""
        for batch in held[:1]:
            self._queue.give_back(batch)
        for batch in held[1:]:
            self._queue.put_back(batch)

    async def _serve(self, replica: Replica, held: list[list[Pending]]) -> None:
        """Hand the replica batches until it is lost, whenever it is this lane's turn; `held` are those in hand."""
        while True:
            await replica.wait_turn()
            batch: list[Pending] = await self._queue.take(replica.budget)
            held.append(batch)
            tokens = sum(pending.tokens for pending in batch)
            began = time.monotonic()
            answers = await replica.run([pending.shot for pending in batch], tokens, alone=batch[0].suspect)
            held.remove(batch)
            for pending, answer in zip(batch, answers, strict=True):
                pending.settle(answer)
            self._queue.measured(len(batch), tokens, time.monotonic() - began)


def _loss(done: Iterable[asyncio.Task[None]]) -> EngineLost:
    """Why an engine was lost, by the tasks around it that have ended; logs what was not foreseen."""
    errors = [error for task in done if not task.cancelled() and isinstance(error := task.exception(), Exception)]
    for error in errors:
        if not isinstance(error, QwenShotsError):
            log.error("an unforeseen error ends the engine", exc_info=error)
    return EngineLost("the engine process ended" + "".join(f": {_why(error)}" for error in errors[:1]))


def _why(error: Exception) -> str:
    return error.detail if isinstance(error, QwenShotsError) else f"{type(error).__name__}: {error}"


def _died(replica: Replica) -> str:
    """Why there is no engine, when its process ended without a word."""
    killed = replica.exit_code == -signal.SIGKILL
    why = "Something killed it; mostly that is the system, when memory runs out. " if killed else ""
    return f"the engine process ended (exit code {replica.exit_code}) while it loaded the model. {why}See the log"


def _tokens(shot: ShotPictures, ready: Ready) -> int:
    """What a shot costs in a batch, once its pictures have their final size."""
    seen = sum(token_count(picture, ready.pictures) for picture in shot.pictures)
    return seen + ready.text_tokens[len(shot.pictures) - 1]
