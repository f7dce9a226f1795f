"""Talks to the server: shots in, analyses out, in batches, patient while the server is busy."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import count, islice
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from qwen_shots.client.errors import (
    BadAnswer,
    BadGateway,
    Busy,
    Problem,
    Refused,
    ServerFailed,
    Unauthorized,
    Unreachable,
)
from qwen_shots.errors import Draining, EngineLoading, EngineLost, InvalidInput, QueueFull, Unavailable
from qwen_shots.loopback import is_this_machine
from qwen_shots.schemas import Analysis, Batch, BatchAnalysis, BatchError, Health, Shot
from qwen_shots.schemas import Problem as ProblemBody

if TYPE_CHECKING:
    from typing_extensions import Self

Answer: TypeAlias = Analysis | BatchError
Parsed = TypeVar("Parsed", bound=BaseModel)

DEFAULT_BATCH = 10  # the server's own default, processing.max_batch_size
DEFAULT_RETRIES = 6

# A queue of 1,280 shots takes a minute at 20 shots a second; a server that wants more patience is told to the user.
MAX_PAUSE_SECONDS = 60.0

# A batch may wait behind a full queue, so an answer may take long; to connect may not.
TIMEOUT = httpx.Timeout(600.0, connect=10.0)

# What a shot of a batch may fail of that is gone a little later.
PASSING = frozenset(kind.slug for kind in (Unavailable, EngineLoading, EngineLost, QueueFull, Draining))

# What a server says to a batch that is too many or too large for it.
TOO_MUCH = frozenset({413, 422})

# Not every proxy says more than a status.
GATEWAY = {502: "a proxy gets no answer of the server behind it", 504: "the server behind a proxy is too slow for it"}


class ShotClient:
    """One server.

    Args:
        url: its address, such as `http://localhost:8000`.
        key: its `server.api_key`.
        batch_size: shots in one request. It is halved when the server wants fewer.
        retries: how often a request is sent again while the server is busy or away.
        sleep: waits so many seconds.

    Raises:
        InvalidInput: the address or the key can't be one, or the environment's proxy can't be used.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        batch_size: int = DEFAULT_BATCH,
        retries: int = DEFAULT_RETRIES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        address = _address(url)
        # A transport of our own is asked past the proxies of the environment, which have no way to this machine.
        direct = httpx.HTTPTransport() if is_this_machine(address.host) else None
        try:
            self._http = httpx.Client(base_url=address, headers=_bearer(key), timeout=TIMEOUT, transport=direct)
        except (ImportError, ValueError) as error:  # SOCKS without the package for it, or no proxy's address at all
            raise InvalidInput(f"the proxy that the environment names can't be used: {error}") from None
        self.batch_size = batch_size
        self._retries = retries
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def health(self) -> Health:
        """Whether a shot could be analysed now. Asks once.

        Raises:
            ServerError: no server answers there, or not this one.
        """
        answer = self._request("GET", "/health")
        if answer.status_code == httpx.codes.OK:
            return _parsed(Health, answer)
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            with suppress(ValidationError):  # a proxy's 503 tells no health
                return Health.model_validate_json(answer.content)
        raise _problem(answer)

    def analyze(self, shots: Iterable[Shot], *, explain: bool = False) -> Iterator[Answer]:
        """Send any number of shots, a batch at a time.

        Args:
            shots: taken from the iterable as the server takes them; no two of one name in a batch.
            explain: whether analyses bear their evidence.

        Returns:
            For each shot, in order, its analysis or why there is none.

        Raises:
            InvalidInput, ServerError: as `analyze_batch`.
        """
        waiting = iter(shots)
        while batch := list(islice(waiting, self.batch_size)):
            yield from self.analyze_batch(batch, explain=explain)

    def analyze_batch(self, shots: Sequence[Shot], *, explain: bool = False) -> list[Answer]:
        """Send some shots.

        While the server is busy or away, it is asked again after the time it names, else after 1, 2, 4... seconds; and
        so are the single shots of a batch that failed of something that passes.

        Args:
            shots: each name once.
            explain: whether analyses bear their evidence.

        Returns:
            For each shot, in order, its analysis or why there is none.

        Raises:
            InvalidInput: two shots bear the same name.
            Unauthorized: the key is wrong.
            Refused: the server does not take the request. Of a batch that it takes in parts, a shot that it refuses
                has an error instead.
            Busy: it still was busy at the last try, or asks for more patience than MAX_PAUSE_SECONDS.
            BadGateway: a proxy before it still had no answer of it then.
            ServerFailed: it could not do it.
            Unreachable: no answer came.
            BadAnswer: the answer is not one of this server's, or leaves a shot out.
        """
        answers = {shot.shot_id: answer for found in self.answers_to(shots, explain=explain) for shot, answer in found}
        return [answers[shot.shot_id] for shot in shots]

    def answers_to(self, shots: Sequence[Shot], *, explain: bool = False) -> Iterator[list[tuple[Shot, Answer]]]:
        """Send some shots as `analyze_batch` does, for who must not lose what was answered when the rest fails.

        Returns:
            Some shots at a time with their answers, as they come; each shot once.

        Raises:
            InvalidInput, ServerError: as `analyze_batch`. What was answered has come before.
        """
        if len({shot.shot_id for shot in shots}) < len(shots):
            raise InvalidInput("two shots of a batch bear the same shot_id; answers are matched by it")
        waiting = shots
        for attempt in range(self._retries + 1):
            if attempt:
                self._sleep(_backoff(attempt))
            again: list[Shot] = []
            for found in self._send(waiting, explain=explain):
                passing = [attempt < self._retries and _may_pass(answer) for _, answer in found]
                again += [shot for (shot, _), passes in zip(found, passing, strict=True) if passes]
                if known := [each for each, passes in zip(found, passing, strict=True) if not passes]:
                    yield known
            if not again:
                return
            waiting = again

    def _send(self, shots: Sequence[Shot], *, explain: bool) -> Iterator[list[tuple[Shot, Answer]]]:
        """Shots with their answers, request by request; a batch that is too much for the server goes in two halves."""
        try:
            answer = self._post(shots, explain=explain)
        except Refused as refusal:
            if len(shots) == 1 or refusal.body.status not in TOO_MUCH:
                raise
        else:
            found: dict[int | str | None, Answer] = {each.shot_id: each for each in answer.results}
            found |= {each.shot_id: each for each in answer.errors}
            yield [(shot, _answer_to(shot, found)) for shot in shots]
            return
        half = len(shots) // 2
        self.batch_size = max(1, min(self.batch_size, half))
        for part in (shots[:half], shots[half:]):
            yield from self._part(part, explain=explain)

    def _part(self, shots: Sequence[Shot], *, explain: bool) -> Iterator[list[tuple[Shot, Answer]]]:
        """A part of a batch: a single shot that is refused costs no other."""
        try:
            yield from self._send(shots, explain=explain)
        except Refused as refusal:
            if len(shots) > 1:
                raise
            yield [(shots[0], as_error(shots[0], refusal))]

    def _post(self, shots: Sequence[Shot], *, explain: bool) -> BatchAnalysis:
        """Ask until the server takes the request or the patience ends."""
        body = Batch(shots=list(shots)).model_dump_json().encode()
        for attempt in count(1):
            outcome = self._ask(body, explain=explain)
            if isinstance(outcome, BatchAnalysis):
                return outcome
            told = outcome.retry_after if isinstance(outcome, Busy) else None
            pause = _backoff(attempt) if told is None else told
            if attempt > self._retries or pause > MAX_PAUSE_SECONDS:
                raise outcome
            self._sleep(pause)
        raise AssertionError

    def _ask(self, body: bytes, *, explain: bool) -> BatchAnalysis | Busy | Unreachable:
        """Ask once.

        A POST, and yet as safe to send again as a GET: an analysis changes nothing on the server and is the same each
        time. So a lost connection and a proxy's 502 or 504 may be tried again, though the server may have had it.
        """
        try:
            answer = self._request("POST", "/analyze_batch", body, explain=explain)
        except Unreachable as trouble:
            return trouble
        if answer.status_code == httpx.codes.OK:
            return _parsed(BatchAnalysis, answer)
        problem = _problem(answer)
        if isinstance(problem, Busy):
            return problem
        raise problem

    def _request(self, method: str, path: str, body: bytes | None = None, *, explain: bool = False) -> httpx.Response:
        try:
            return self._http.request(
                method,
                path,
                content=body,
                headers={"Content-Type": "application/json"} if body else None,
                params={"explain": "true"} if explain else None,
            )
        except httpx.DecodingError:
            raise BadAnswer(f"the answer to {path} can't be decoded") from None
        except httpx.TimeoutException:
            raise Unreachable(f"no answer from {self._http.base_url} in time") from None
        except (httpx.TransportError, UnicodeError) as error:  # the latter of a host's name that is too long
            raise Unreachable(f"no server can be reached at {self._http.base_url} ({error})") from None


def as_error(shot: Shot, problem: Problem) -> BatchError:
    """A shot's error where the server said no to all that was sent with it."""
    body = problem.body
    return BatchError(index=0, shot_id=shot.shot_id, type=body.type, title=body.title, detail=body.detail)


def _address(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise InvalidInput(f"the server's address can't be read ({error})") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise InvalidInput("the server's address begins with http:// or https://, such as http://localhost:8000")
    return url


def _bearer(key: str) -> dict[str, str]:
    """Without a key the server says itself what it wants."""
    if re.search(r"[^\x21-\x7e]", key):
        raise InvalidInput("the key holds a blank or a letter that no key has: they are of ASCII's signs alone")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _answer_to(shot: Shot, found: dict[int | str | None, Answer]) -> Answer:
    if shot.shot_id not in found:
        raise BadAnswer(f"the server said nothing about shot {shot.shot_id}")
    return found[shot.shot_id]


def _may_pass(answer: Answer) -> bool:
    return isinstance(answer, BatchError) and answer.type.rpartition(":")[2] in PASSING


def _backoff(attempt: int) -> float:
    """1, 2, 4... seconds before the first, second, third time again."""
    return min(2.0 ** (attempt - 1), MAX_PAUSE_SECONDS)


def _problem(answer: httpx.Response) -> Problem | BadAnswer:
    """The answer's problem as an error of its own kind."""
    status = answer.status_code
    if status < 400:
        return BadAnswer(f"the server answered with status {status}; is its address right?")
    kinds = {401: Unauthorized, 429: Busy, 503: Busy, 502: BadGateway, 504: BadGateway}
    kind = kinds.get(status) or (Refused if status < 500 else ServerFailed)
    return kind(_problem_body(answer), _retry_after(answer))


def _problem_body(answer: httpx.Response) -> ProblemBody:
    try:
        return ProblemBody.model_validate_json(answer.content)
    except ValidationError:
        # A proxy's answer, most likely; RFC 9457, section 4.2.1 names it so.
        title = answer.reason_phrase or "Error"
        why = GATEWAY.get(answer.status_code)
        detail = f"status {answer.status_code} {title}" + (f": {why}" if why else "")
        return ProblemBody(type="about:blank", title=title, status=answer.status_code, detail=detail, request_id="")


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds; the header has them, or a date (RFC 9110, section 10.2.3)."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def _parsed(kind: type[Parsed], answer: httpx.Response) -> Parsed:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError:
        raise BadAnswer(f"the answer to {answer.request.url.path} is not one of this server's") from None
