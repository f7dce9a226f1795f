"""The engine on other machines: OpenAI-compatible servers (vLLM, SGLang), fed from one queue and watched.

Asks what the local engine asks, in the same words; `docs/remote.md` tells what the protocol makes different.
"""

from __future__ import annotations

import asyncio
import logging
import time

from engines.base import EngineInfo, Observer, ShotPictures, ShotReading, Status
from engines.endpoint import Endpoint
from engines.line import Line
from engines.pixels import fit_shot, token_count
from engines.scheduler import ShotQueue
from model_loader import PictureSpec, find_picture_spec
from qwen_shots.errors import CannotLoad, EngineLoading, EngineLost, QueueFull, QwenShotsError
from qwen_shots.media import PictureFit
from settings import Settings

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 15.0

# A server of a large model takes minutes to load it.
START_SECONDS = 900.0

NONE_ANSWERS = "no endpoint answers; they are asked again and again"


class RemoteEngine:
    """Implements `engines.base.Engine` with the endpoints that the settings name."""

    def __init__(self, settings: Settings, observer: Observer | None = None) -> None:
        self._settings = settings
        self._queue = ShotQueue(settings.server.max_queue_shots, settings.server.max_queue_tokens, observer)
        self._endpoints = [Endpoint(url, settings.model) for url in settings.model.endpoints]
        self._spec: PictureSpec | None = None
        self._up: set[Line] = set()
        self._unusable: set[Line] = set()
        self._began = time.monotonic()
        self._was_up = False
        self._failure: str | None = None
        self._room = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._in_hand: set[asyncio.Future[ShotReading]] = set()

    @property
    def info(self) -> EngineInfo:
        """What the engine runs on."""
        weights = next((endpoint.weights for endpoint in self._endpoints if endpoint.weights), None)
        return EngineInfo(self._settings.model.name, "remote" if self._was_up else None, weights=weights)

    @property
    def failure(self) -> str | None:
        """Why it can't run, once `status` is FAILED."""
        return self._failure

    @property
    def status(self) -> Status:
        """HEALTHY while any endpoint answers: the others' shots go to it."""
        if self._failure:
            return Status.FAILED
        if not self._was_up:
            return Status.LOADING
        return Status.HEALTHY if self._up else Status.DEGRADED

    @property
    def fit(self) -> PictureFit | None:
        """How large the model sees pictures; None until its files are read."""
        return self._spec.fit(self._settings.model.max_frame_tokens) if self._spec else None

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

    async def start(self) -> None:
        """Begin to look for the endpoints."""
        self._tasks.append(asyncio.create_task(self._start()))

    async def look(self, shot: ShotPictures) -> ShotReading:
        """Look at one shot; see `Engine.look`."""
        if self._spec is None or not self._was_up:
            raise EngineLoading("no endpoint has answered yet")
        if not self._up:
            raise EngineLost(NONE_ANSWERS)
        cap = self._settings.model.max_frame_tokens
        fitted = await asyncio.to_thread(fit_shot, shot, self._spec, cap)
        tokens = sum(token_count(picture, self._spec) for picture in fitted.pictures)
        answer = self._queue.put(fitted, tokens)
        self._in_hand.add(answer)
        answer.add_done_callback(self._in_hand.discard)
        return await answer

    async def close(self) -> None:
        """Finish the shots in hand, then let the connections go."""
        while self._in_hand and self._up:
            await asyncio.wait(set(self._in_hand), timeout=1)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._queue.fail_all(EngineLost("the server is being stopped"))
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints))
        self._up.clear()

    async def _start(self) -> None:
        try:
            self._spec = await asyncio.to_thread(find_picture_spec, self._settings.model.name)
        except CannotLoad as error:
            self._failure = error.detail
            return
        lines = [
            Line(endpoint, self._queue, self._settings, self._spec, self._room.set) for endpoint in self._endpoints
        ]
        self._tasks += [asyncio.create_task(self._keep(line)) for line in lines]
        await self._hand_out()

    async def _hand_out(self) -> None:
        """Give each shot, as soon as any endpoint has room, to the one that is least busy."""
        while True:
            while not self._least_busy():
                self._room.clear()
                await self._room.wait()
            (pending,) = await self._queue.take(1)
            if line := self._least_busy():
                line.hand(pending)
            else:  # the endpoint was lost while there was nothing to do
                self._queue.put_back([pending])

    def _least_busy(self) -> Line | None:
        line = min(self._up, key=lambda line: line.busy, default=None)
        return line if line and line.busy < 1 else None

    async def _keep(self, line: Line) -> None:
        """Keep one endpoint in use: wait until it answers, serve, and wait again when it is lost."""
        pause = FIRST_PAUSE_SECONDS
        while not self._failure:
            came = await self._use(line)
            pause = FIRST_PAUSE_SECONDS if came else min(2 * pause, LAST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def _use(self, line: Line) -> bool:
        """Serve with one endpoint until it is lost; whether it answered at all."""
        came = False
        try:
            await line.check()
            came = True
            self._came(line)
            await line.serve()
        except (CannotLoad, EngineLost) as error:
            log.error("%s: %s", line.endpoint.url, error.detail)  # noqa: TRY400 - a stack says nothing here
            self._went(line)
            if not came:
                self._stays_away(line, error)
        except Exception:
            # What nobody foresaw: the endpoint is left, and tried again like any other.
            log.exception("%s: unexpected error", line.endpoint.url)
            self._went(line)
            if not came:
                self._stays_away(line, EngineLost("an unexpected error; the server's log has it"))
        return came

    def _came(self, line: Line) -> None:
        log.info("%s answers", line.endpoint.url)
        if any(other.weights not in {None, line.endpoint.weights} for other in self._endpoints):
            log.warning("%s serves another checkpoint under this name than other endpoints do", line.endpoint.url)
        self._up.add(line)
        self._was_up = True
        self._count()

    def _went(self, line: Line) -> None:
        self._up.discard(line)
        self._count()

    def _count(self) -> None:
        self._queue.servers = sum(line.shots_at_once for line in self._up)

    def _stays_away(self, line: Line, error: QwenShotsError) -> None:
        """It may never come, so nobody waits for it; at the start, what somebody must change ends the server."""
        if not self._up:
            self._queue.fail_all(EngineLost(NONE_ANSWERS))
        if isinstance(error, CannotLoad):
            self._unusable.add(line)
        else:
            self._unusable.discard(line)
        late = time.monotonic() - self._began > START_SECONDS
        if not self._was_up and (late or len(self._unusable) == len(self._endpoints)):
            self._failure = f"model.endpoints: none can be used. {line.endpoint.url}: {error.detail}"
