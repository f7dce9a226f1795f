"""One OpenAI-compatible server: asked in bounded numbers, patiently, and not for ever.

What it answers, or doesn't, comes out as one of three:

    an answer       the decoded JSON
    NoAnswer        it did not answer, or said that it can't now: another endpoint may, or this one later
    Refused         it will not take this request
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from functools import partial
from typing import Any

import anyio
import httpx

from engines.apart import apart
from qwen_shots.errors import CannotLoad, InvalidSettings
from qwen_shots.loopback import is_this_machine
from settings import ModelSettings

KEY_VARIABLE = "QWEN_ENDPOINT_KEY"

TRIES = 3
FIRST_PAUSE_SECONDS = 0.2
LAST_PAUSE_SECONDS = 5.0
CONNECT_SECONDS = 5.0
MODELS_SECONDS = 10.0

# What an endpoint says of its model that stays the same when it is started again: its name, the checkpoint behind the
# name, and the one that an adapter was made for.
IDENTITY = ("id", "root", "parent")

# Worth asking again: busy, or something went wrong over there.
PASSING = frozenset({408, 429, 500, 502, 503, 504})
# The endpoint is not, or no longer, one that serves this model to this key.
CLOSED = frozenset({401, 403, 404})


class NoAnswer(Exception):
    """The endpoint did not answer, or can't now."""


class Passing(NoAnswer):
    """What may be gone a moment later. `wait` is the server's Retry-After, if it sent one."""

    def __init__(self, what: str, wait: str | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class Refused(Exception):
    """The endpoint will not take this request."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"it answered {status}")
        self.status = status
        self.said = said


class Endpoint:
    """One server.

    Args:
        url: its address, as the settings have it.
        settings: the section `model`.

    Attributes:
        refuses_names: set by who has found that pictures can't be named.
        weights: a hash of what the endpoint says of its model; None before it has answered.
    """

    def __init__(self, url: str, settings: ModelSettings) -> None:
        self.url = url
        self.refuses_names = False
        self.weights: str | None = None
        self._is_vllm = False
        self._model = settings.name
        self._seconds = settings.endpoint_timeout
        self._room = anyio.Semaphore(settings.endpoint_requests)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=settings.endpoint_requests)
        # A transport of our own is asked past the proxies of the environment, which have no way to this machine.
        direct = httpx.AsyncHTTPTransport(limits=limits) if is_this_machine(httpx.URL(url).host) else None
        # No redirect is followed: the key goes to the endpoints that the settings name, and nowhere else.
        try:
            self._http = httpx.AsyncClient(
                headers={"Content-Type": "application/json", **_authorization()},
                timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
                limits=limits,
                transport=direct,
                follow_redirects=False,
            )
        except (ImportError, ValueError) as error:  # SOCKS without the package for it, or no proxy's address at all
            raise InvalidSettings(f"the proxy that the environment names can't be used: {error}") from None

    @property
    def knows_names(self) -> bool:
        """Whether pictures that it has seen can be named instead of sent again: vLLM alone has that."""
        return self._is_vllm and not self.refuses_names

    async def close(self) -> None:
        """Let the connections go."""
        await apart(self._http.aclose)

    async def ask(self, body: bytes) -> Any:
        """One chat completion, tried again while that may help.

        Raises:
            NoAnswer: none came.
            Refused: the request is not taken.
        """
        tries = 1
        while True:
            try:
                async with self._room:
                    return await self._send("POST", "/chat/completions", self._seconds, body)
            except Passing as error:
                if tries == TRIES:
                    raise
                await asyncio.sleep(_pause(tries, error.wait))
            except Refused as error:
                if error.status in CLOSED:
                    raise NoAnswer(str(error)) from None
                raise
            tries += 1

    async def find_model(self) -> None:
        """See that the endpoint serves the model, under the name of the settings.

        Raises:
            NoAnswer: it does not answer.
            CannotLoad: it serves another model, or wants another key.
        """
        try:
            answer = await self._send("GET", "/models", MODELS_SECONDS)
            served = {str(model["id"]): dict(model) for model in answer["data"]}
        except Refused as error:
            raise _closed(error) from None
        except (KeyError, TypeError, ValueError):
            raise NoAnswer("its list of models is not one") from None
        if self._model not in served:
            raise CannotLoad(f"it serves {', '.join(sorted(served)) or 'no model'}, not {self._model} (model.name)")
        model = served[self._model]
        self._is_vllm = model.get("owned_by") == "vllm"
        self.weights = _hash_of([model.get(name) for name in IDENTITY])

    async def _send(self, method: str, path: str, seconds: float, body: bytes | None = None) -> Any:
        """Send once; the decoded answer."""
        try:
            with anyio.fail_after(seconds):
                answer = await apart(partial(self._http.request, method, self.url + path, content=body))
        except (TimeoutError, httpx.ConnectTimeout):
            # Not tried again here: the shot's time is running out, and another endpoint may be faster.
            raise NoAnswer("it did not answer in time") from None
        except httpx.RequestError as error:
            raise Passing(f"no connection ({type(error).__name__}: {error})") from None
        if answer.status_code in PASSING:
            raise Passing(f"it answered {answer.status_code}", answer.headers.get("retry-after"))
        if answer.status_code != 200:
            raise Refused(answer.status_code, answer.text[:500])
        try:
            return answer.json()
        except (ValueError, RecursionError):
            raise NoAnswer("its answer is not JSON") from None


def _hash_of(said: list[Any]) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _pause(tries: int, wanted: str | None) -> float:
    """Seconds before the next try: what the server wants, else longer each time, and not the same for all."""
    if wanted is not None and wanted.isdecimal():
        return min(float(wanted), LAST_PAUSE_SECONDS)
    return FIRST_PAUSE_SECONDS * (1 << tries) * random.uniform(0.5, 1)  # noqa: S311 - no secret


def _closed(error: Refused) -> CannotLoad:
    if error.status in {401, 403}:
        return CannotLoad(f"it answered {error.status}: set its key in the variable {KEY_VARIABLE}")
    return CannotLoad(f"it answered {error.status} to GET /models: is it an OpenAI-compatible server?")


def _authorization() -> dict[str, str]:
    """The endpoints' own key, from the environment; never the key of this server.

    Raises:
        InvalidSettings: the variable holds what can't be a key. The message does not repeat it.
    """
    key = os.environ.get(KEY_VARIABLE, "")
    if not all("!" <= letter <= "~" for letter in key):
        raise InvalidSettings(f"{KEY_VARIABLE} must be visible ASCII characters without spaces")
    return {"Authorization": f"Bearer {key}"} if key else {}
