"""A small OpenAI-compatible server on a real port, whose faults can be chosen."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import math
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engines.base import Picture
from tests.helpers import free_port

# What it says of every picture: 0 or 1 before the point, and the first decimal.
WHOLES = {"0": 0.8, "1": 0.1}
DIGITS = {str(digit): (digit + 1) / 60 for digit in range(10)}
OTHERS = {f"word{number}": 0.001 for number in range(30)}
CAPTION = "\n A fake  caption\N{REPLACEMENT CHARACTER}\r\nPicture 1, suspense: 0.7\n"


class FakeServer:
    """Serves from `start` to `stop`, in a thread of its own.

    Attributes:
        model: the name under which it serves.
        root: the checkpoint behind the name.
        told: labels that it tells among the likeliest tokens; None tells all.
        fault: called with each request's body; an answer that it returns is sent instead.
        delay: seconds before each answer.
        forgets: whether it remembers no picture.
        bodies, headers, paths: what came in.
        most: requests at the same time, the most that there were.
    """

    def __init__(self, port: int | None = None, *, key: str | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.model = "models/qwen2-vl-film-tiny"
        self.owner = "vllm"
        self.root = "a/checkpoint"
        self.told: set[str] | None = None
        self.fault: Callable[[dict[str, Any]], Response | None] = lambda _: None
        self.delay = 0.0
        self.forgets = False
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.dropped = 0
        self.now = self.most = 0
        self._key = key
        self._seen: set[str] = set()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, **options: Any) -> FakeServer:
        """Listen."""
        routes = [
            Route("/v1/models", self._models),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/{rest:path}", self._stray, methods=["GET", "POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=self.port, log_config=None, lifespan="off", **options)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    async def _serve(self) -> None:
        assert self._server
        self._loop = asyncio.get_running_loop()
        await self._server.serve()

    def stop(self) -> None:
        """End as a killed process does: nobody is let in any more, and connections are cut."""
        assert self._server
        assert self._thread
        self._server.should_exit = True
        while self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._cut)
            self._thread.join(0.02)
        self._seen.clear()

    def _cut(self) -> None:
        assert self._server
        for listening in self._server.servers:
            listening.close()
        for connection in list(self._server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def _models(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        if self._key and request.headers.get("authorization") != f"Bearer {self._key}":
            return JSONResponse({"error": {"message": "no"}}, 401)
        # As vLLM has it: some of it is new in every answer.
        grant = {"id": f"modelperm-{uuid.uuid4().hex}", "object": "model_permission", "created": time.time_ns()}
        model = {"id": self.model, "owned_by": self.owner, "root": self.root, "created": time.time_ns()}
        return JSONResponse({"object": "list", "data": [{**model, "permission": [grant]}]})

    async def _stray(self, request: Request) -> Response:
        self.paths.append(request.url.path)
        return Response(status_code=404)

    async def _chat(self, request: Request) -> Response:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            self.headers.append(dict(request.headers))
            body = json.loads(await request.body())
            self.bodies.append(body)
            if self.delay and not await self._wait(request):
                self.dropped += 1
                return Response(status_code=499)
            return self.fault(body) or self._answer(body)
        finally:
            self.now -= 1

    async def _wait(self, request: Request) -> bool:
        """Whether the client is still there after the delay, which may be changed meanwhile."""
        began = time.monotonic()
        while time.monotonic() < began + self.delay:
            if await request.is_disconnected():
                return False
            await asyncio.sleep(min(0.01, self.delay))
        return True

    def _answer(self, body: dict[str, Any]) -> Response:
        if body["model"] != self.model:
            return JSONResponse({"error": {"message": "no such model"}}, 404)
        for part in body["messages"][1]["content"]:
            if part["image_url"] is None and (self.forgets or part["uuid"] not in self._seen):
                message = "Cache miss for image at index 0 but data is not provided."
                return JSONResponse({"error": {"message": message}}, 400)
            self._seen.add(part["uuid"])
        if not body.get("logprobs"):
            return JSONResponse({"choices": [{"message": {"content": CAPTION}}]})
        top = [{"token": token, "logprob": math.log(chance)} for token, chance in self._chances(body)]
        return JSONResponse({"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]})

    def _chances(self, body: dict[str, Any]) -> list[tuple[str, float]]:
        chances = DIGITS if begun(body).endswith(": 0.") else WHOLES
        if "response_format" in body:
            labels = [str(label) for label in body["response_format"]["json_schema"]["schema"]["enum"]]
            together = sum(chances[label] for label in labels)
            chances = {label: chances[label] / together for label in labels}
        else:
            told = chances if self.told is None else {label: chances[label] for label in chances if label in self.told}
            chances = told | OTHERS
        return sorted(chances.items(), key=lambda pair: -pair[1])[: body["top_logprobs"]]


def begun(body: dict[str, Any]) -> str:
    """How the assistant's message begins."""
    text: str = body["messages"][-1]["content"]
    return text


def pictures_of(body: dict[str, Any]) -> list[Picture]:
    """The pictures that a request bears, decoded."""
    urls = [part["image_url"]["url"] for part in body["messages"][1]["content"] if part["image_url"]]
    files = [base64.b64decode(url.removeprefix("data:image/png;base64,")) for url in urls]
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files]
