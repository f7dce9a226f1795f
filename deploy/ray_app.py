"""The server as a Ray Serve application: `serve run deploy.ray_app:app`, in the folder that holds server.py.

An ingress that is `server.create_app`, and engine replicas of one GPU each, or of none. `config.yaml` says it all, as
on one machine; the section `cluster` says how many there are.
"""

from __future__ import annotations

import re
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.replicas import ENGINE, EngineReplica, MakeEngine, ReplicatedEngine
from engines.local import LocalEngine
from logs import log_to_terminal
from server import create_app
from settings import Settings, load_settings

INGRESS = "ingress"
# The server itself says when it has too much, with Retry-After; Serve must not hold requests back before that, nor
# /health.
INGRESS_REQUESTS = 100_000
REQUEST_ID = b"x-request-id"
PLAIN_ID = re.compile(rb"[\w-]{1,64}", re.ASCII)


class RequestIdOfProxy:
    """Middleware: the request has the name that Serve's proxy gave it, once in the answer.

    The proxy adds the header to each answer; the server would add one of its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with the proxy's name."""
        names = [value for name, value in scope.get("headers", ()) if name == REQUEST_ID]
        if names and PLAIN_ID.fullmatch(names[0]):
            scope.setdefault("state", {})["request_id"] = names[0].decode()

        async def without_ours(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                message["headers"] = [(name, value) for name, value in headers if name.lower() != REQUEST_ID]
            await send(message)

        await self._app(scope, receive, without_ours)


@serve.ingress()
class Ingress:
    """A deployment's replica: the whole server, whose engine is the other deployment.

    Args:
        settings: the whole configuration.
        engine: the deployment of `EngineReplica`; None takes the engine that the settings name.
    """

    def __init__(self, settings: Settings, engine: DeploymentHandle[Any] | None) -> None:
        log_to_terminal(settings.server.log_format)
        self._settings = settings
        self._engine = engine

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """What Serve runs; called once, on the ingress's machine."""
        engine = ReplicatedEngine(self._settings, self._engine) if self._engine else None
        return RequestIdOfProxy(create_app(self._settings, engine))


def app(_: dict[str, str]) -> Application:
    """The application that the configuration describes. `serve run` calls it.

    Raises:
        InvalidSettings: the configuration is wrong.
    """
    settings = load_settings()
    # Endpoints have their GPUs elsewhere, so that ingress replicas are all there is.
    return build(settings, LocalEngine if settings.model.engine == "local" else None)


def build(settings: Settings, make_engine: MakeEngine | None) -> Application:
    """The application of these settings.

    Args:
        settings: the whole configuration.
        make_engine: builds the engine of each replica, on the replica's machine; None: there are no engine replicas.
    """
    cluster = settings.cluster
    common = {"graceful_shutdown_timeout_s": settings.server.drain_timeout}
    engines = serve.deployment(
        EngineReplica,
        name=ENGINE,
        # All that one ingress may have accepted: a shot is then always in a replica's hand, where a stop waits for it.
        max_ongoing_requests=settings.server.max_queue_shots,
        ray_actor_options={"num_gpus": 0 if settings.model.device == "cpu" else cluster.gpus_per_replica},
        autoscaling_config={
            "min_replicas": cluster.min_replicas,
            "max_replicas": cluster.max_replicas,
            "target_ongoing_requests": cluster.target_replica_shots,
        },
        **common,
    )
    ingress = serve.deployment(
        Ingress,
        name=INGRESS,
        num_replicas=cluster.ingress_replicas,
        max_ongoing_requests=INGRESS_REQUESTS,
        **common,
    )
    return ingress.bind(settings, engines.bind(settings, make_engine) if make_engine else None)
