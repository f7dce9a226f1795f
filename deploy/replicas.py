"""An engine whose replicas are Ray actors on any machine of a cluster. No torch and no web framework here.

`EngineReplica` holds one engine of one machine. `ReplicatedEngine` is what the server sees instead of it: it forwards
each `look` to the replica that Ray Serve picks. Serve places, routes, scales and watches; batches, GPUs and stuck
kernels stay `LocalEngine`'s business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ray import serve
from ray.exceptions import ActorUnavailableError, RayActorError, RayError
from ray.serve.exceptions import RayServeException

from deploy.waiting import Waiting
from engines.base import Engine, EngineInfo, ShotPictures, ShotReading, Status
from engines.pixels import fit_shot, token_count
from engines.scheduler import MAX_TRIES
from engines.stations import Answer
from model_loader import PictureSpec
from qwen_shots.errors import CannotLoad, Draining, EngineLoading, EngineLost, QueueFull, QwenShotsError
from qwen_shots.media import PictureFit
from settings import Settings

log = logging.getLogger("qwen_server")

ENGINE = "engine"
POLL_SECONDS = 0.2
WATCH_SECONDS = 1.0


class MachineEngine(Engine, Protocol):
    """An engine that says how it wants its pictures, so that no more than that travels between machines."""

    @property
    def pictures(self) -> PictureSpec | None:
        """None while it loads."""


MakeEngine = Callable[[Settings], MachineEngine]


@dataclass(frozen=True, slots=True)
class Description:
    """What a replica runs on, and how it wants its pictures."""

    info: EngineInfo
    pictures: PictureSpec


class EngineReplica:
    """A deployment's replica: one engine, which Ray gives its GPUs to.

    Args:
        settings: the whole configuration, as the ingress read it.
        make_engine: builds the engine on the replica's machine.

    Raises:
        CannotLoad: the model can't be loaded there; Serve tries again, and then gives the deployment up.
    """

    async def __init__(self, settings: Settings, make_engine: MakeEngine) -> None:  # type: ignore[misc] # Serve awaits it
        self._engine = make_engine(settings)
        await self._engine.start()
        await self._loaded()
        if self._engine.failure:
            await self._engine.close()
            raise CannotLoad(self._engine.failure)

    async def look(self, shot: ShotPictures) -> Answer:
        """Look at one shot. Its error is returned, not raised: Ray would wrap it in one of its own."""
        # An engine that comes back after a fault would answer at once with an error, and the router, which prefers
        # whoever is quick, would send it everything.
        await self._healthy()
        try:
            return await self._engine.look(shot)
        except QwenShotsError as error:
            return error

    async def describe(self) -> Description:
        """What the engine runs on."""
        assert self._engine.pictures is not None
        return Description(self._engine.info, self._engine.pictures)

    def check_health(self) -> None:
        """Serve asks every 10 s, and replaces the replica after the third error in a row.

        Raises:
            EngineLost: the engine is not (or not yet again) able to look at shots.
        """
        if self._engine.status is not Status.HEALTHY:
            raise EngineLost("the engine stopped; it is being started again")

    async def __del__(self) -> None:
        """Serve calls it at the end, when the shots in hand are finished."""
        await self._engine.close()

    async def _loaded(self) -> None:
        while self._engine.status is Status.LOADING:
            await asyncio.sleep(POLL_SECONDS)

    async def _healthy(self) -> None:
        while self._engine.status is not Status.HEALTHY:
            await asyncio.sleep(POLL_SECONDS)


class ReplicatedEngine:
    """Implements `engines.base.Engine` with the replicas of a deployment.

    Args:
        settings: the whole configuration.
        handle: the deployment of `EngineReplica`.
    """

    def __init__(self, settings: Settings, handle: Any) -> None:
        self._handle = handle
        self._max_frame_tokens = settings.model.max_frame_tokens
        self._waiting = Waiting(settings.server.max_queue_shots, settings.server.max_queue_tokens)
        self._info = EngineInfo(settings.model.name)
        self._described: Description | None = None
        self._running = 0
        self._failure: str | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def info(self) -> EngineInfo:
        """What all running replicas together run on."""
        if self._described is None:
            return self._info
        one = self._described.info
        memory = one.gpu_memory_bytes
        return replace(
            one,
            gpu_count=one.gpu_count * self._running,
            gpu_memory_bytes=None if memory is None else memory * self._running,
        )

    @property
    def status(self) -> Status:
        """HEALTHY as soon as one replica runs: the others may be on their way up or down."""
        if self._failure and not self._running:
            return Status.FAILED
        if self._described is None:
            return Status.LOADING
        return Status.HEALTHY if self._running else Status.DEGRADED

    @property
    def failure(self) -> str | None:
        """What Serve says of replicas that can't be started."""
        return self._failure

    @property
    def fit(self) -> PictureFit | None:
        """How large the model sees pictures; None until a replica has told."""
        return self._described.pictures.fit(self._max_frame_tokens) if self._described else None

    @property
    def queue_depth(self) -> int:
        """Shots of this ingress that are not answered, waiting or in a replica's hand."""
        return self._waiting.shots

    @property
    def full(self) -> QueueFull | None:
        """Why no further shot can wait; None while one can."""
        return self._waiting.full

    @property
    def retry_after(self) -> int:
        """Seconds until the shots in hand will be through, at the measured rate."""
        return self._waiting.retry_after

    async def start(self) -> None:
        """Begin to watch the deployment."""
        self._watcher = asyncio.create_task(self._watch())

    async def look(self, shot: ShotPictures) -> ShotReading:
        """Look at one shot; see `Engine.look`."""
        if self._described is None:
            raise EngineLoading("the model is still being loaded")
        spec = self._described.pictures
        fitted = await asyncio.to_thread(fit_shot, shot, spec, self._max_frame_tokens)
        with self._waiting.one(sum(token_count(picture, spec) for picture in fitted.pictures)):
            answer = await self._ask(fitted)
        if isinstance(answer, QwenShotsError):
            raise answer
        return answer

    async def close(self) -> None:
        """Stop watching. The replicas are Serve's to end."""
        if self._watcher:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    async def _ask(self, shot: ShotPictures) -> Answer:
        """Ask a replica; when it dies with the shot in its hand, ask another one."""
        for _ in range(MAX_TRIES):
            response = self._handle.look.remote(shot)
            try:
                answer: Answer = await response
            except asyncio.CancelledError:
                response.cancel()  # its client went away
                raise
            except (RayActorError, ActorUnavailableError) as error:
                log.warning("a replica was lost with a shot in its hand: %s", type(error).__name__)
            except RayServeException as error:
                log.warning("Serve has no replica for a shot: %s", type(error).__name__)
                raise Draining("the server is being stopped; send the shot again later") from None
            else:
                return answer
        raise EngineLost("the engine stopped twice while it held the shot")

    async def _watch(self) -> None:
        while True:
            try:
                await self._look_around()
            except (RayError, RayServeException, KeyError) as error:
                # The controller may be on its way to another machine: what was known still holds.
                log.warning("the state of the replicas can't be read: %s", type(error).__name__)
            await asyncio.sleep(WATCH_SECONDS)

    async def _look_around(self) -> None:
        name = serve.get_replica_context().app_name
        application = (await asyncio.to_thread(serve.status)).applications[name]
        deployment = application.deployments[ENGINE]
        self._running = deployment.replica_states.get("RUNNING", 0)
        failed = "DEPLOY_FAILED" in (application.status, deployment.status)
        self._failure = deployment.message if failed else None
        if self._running:
            # Again and again: an update may have put another model there.
            self._described = await self._handle.describe.remote()
