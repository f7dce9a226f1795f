"""Says in every answer which model the server runs: `X-Model: NAME@FINGERPRINT`."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import quote

from engines.base import Engine, EngineInfo
from qwen_shots.scoring import SCORING_VERSION
from settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MODEL_HEADER = "X-Model"
FINGERPRINT_DIGITS = 16


def model_id(info: EngineInfo, settings: Settings) -> str | None:
    """Build the header's value. Scores of equal fingerprints may be compared, whatever the name.

    Args:
        info: what the engine says of itself.
        settings: the whole configuration.

    Returns:
        The name, percent-encoded where a header has no sign for it, and 16 hexadecimal digits of the SHA-256 of what
        makes the scores: the weights, the attributes, the quantization and the version of the scoring. None while the
        weights are not known.
    """
    if info.weights is None:
        return None
    quantization = settings.model.model_dump(include={"quantization"})
    made_of = json.dumps([info.weights, settings.attributes, quantization, SCORING_VERSION], sort_keys=True)
    fingerprint = hashlib.sha256(made_of.encode()).hexdigest()[:FINGERPRINT_DIGITS]
    return f"{quote(info.model, safe='/:~+@ ')}@{fingerprint}"


class ModelHeader:
    """Middleware that adds the header to every answer."""

    def __init__(self, app: ASGIApp, engine: Engine, settings: Settings) -> None:
        self._app = app
        self._engine = engine
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start" and (value := model_id(self._engine.info, self._settings)):
                message["headers"] = [*message.get("headers", []), (MODEL_HEADER.lower().encode(), value.encode())]
            await send(message)

        await self._app(scope, receive, named)
