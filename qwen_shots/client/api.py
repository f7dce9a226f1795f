"""Talks to the server: shots in, analyses out, in batches, patient while the server is busy."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    ModelChanged,
    Problem,
    Refused,
    ServerFailed,
    Unauthorized,
    Unreachable,
)
from qwen_shots.client.exchange import AnswerTooLarge, Exchanges
from qwen_shots.errors import Draining, EngineLoading, EngineLost, InvalidInput, QueueFull, Unavailable
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
# The time that a server names is the same for all who wait; nobody comes sooner, and some a little later.
LONGEST_LATER = 1.1

# A batch may wait behind a full queue, up to `server.request_timeout`; /health waits for nothing.
ANSWER_SECONDS = 660.0
HEALTH_SECONDS = 10.0

# An analysis with the evidence of 64 attributes has 30 kB.
BASE_BYTES = 1 << 16
SHOT_BYTES = 1 << 18

# Words of an error, which are shown to people and stored.
MOST_LETTERS = 1000

# What a shot of a batch may fail of that is gone a little later.
PASSING = frozenset(kind.slug for kind in (Unavailable, EngineLoading, EngineLost, QueueFull, Draining))

# What a server says to a batch that is too many or too large for it.
TOO_MUCH = frozenset({413, 422})

# Not every proxy says more than a status. Those from 520 on are Cloudflare's
# (https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/).
GATEWAY = {
    502: "a proxy gets no answer of the server behind it",
    504: "the server behind a proxy is too slow for it",
    **dict.fromkeys(range(520, 531), "a proxy gets no answer of the server behind it"),
}

KINDS: Mapping[int, type[Problem]] = {
    401: Unauthorized,
    **dict.fromkeys((408, 429, 503), Busy),
    **dict.fromkeys(GATEWAY, BadGateway),
}

MODEL_HEADER = "x-model"

SERVER_VARIABLE = "QWEN_SHOTS_SERVER"
KEY_VARIABLE = "QWEN_SHOTS_KEY"
DEFAULT_SERVER = "http://localhost:8000"


class ShotClient:
    """One server.

    Args:
        url: its address, such as `http://localhost:8000`.
        key: its `server.api_key`.
        batch_size: shots in one request. It is halved when the server wants fewer.
        retries: how often a request is sent again while the server is busy or away.
        sleep: waits so many seconds.

    Attributes:
        address: the server's, without a password.
        model: which model answers, `NAME@FINGERPRINT`; None before an answer, and where the server does not say it.

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
        self.address = str(address.copy_with(userinfo=b"")).rstrip("/")
        self.model: str | None = None
        try:
            self._exchanges = Exchanges(address, _checked(key))
        except (ImportError, ValueError) as error:  # SOCKS without the package for it, or no proxy's address at all
            raise InvalidInput(f"the proxy that the environment names can't be used: {error}") from None
        self._answered = False
        self._turn = threading.Lock()
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
        self._exchanges.close()

    def health(self) -> Health:
        """Whether a shot could be analysed now. Asks once.

        Raises:
            ServerError: no server answers there, or not this one.
        """
        answer = self._request("GET", "/health", seconds=HEALTH_SECONDS, most_bytes=BASE_BYTES)
        if answer.status_code == httpx.codes.OK:
            health = _parsed(Health, answer)
        elif answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            try:
                health = Health.model_validate_json(answer.content)
            except ValidationError:  # a proxy's 503 tells no health
                raise _problem(answer) from None
        elif isinstance(problem := _problem(answer), Refused):
            raise BadAnswer(
                f"what answers at {self.address} is no qwen-shots server (status {answer.status_code} to /health); "
                "is the address right?"
            )
        else:
            raise problem
        if MODEL_HEADER in answer.headers:
            self._note_model(answer)
        return health

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

        While the server is busy or away, it is asked again after the time it names, else after some 1, 2, 4... seconds;
        and so are the single shots of a batch that failed of something that passes. One that never answered is not.

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
            BadAnswer: the answer is not one of this server's, is too large, or leaves a shot out.
            ModelChanged: another model answers than before.
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
        most_bytes = BASE_BYTES + SHOT_BYTES * len(shots)
        for attempt in count(1):
            outcome = self._ask(body, most_bytes, explain=explain)
            if isinstance(outcome, BatchAnalysis):
                return outcome
            told = outcome.retry_after if isinstance(outcome, Busy) else None
            if attempt > self._retries or not self._answered or (told or 0) > MAX_PAUSE_SECONDS:
                raise outcome
            self._sleep(_backoff(attempt) if told is None else told * random.uniform(1, LONGEST_LATER))  # noqa: S311
        raise AssertionError

    def _ask(self, body: bytes, most_bytes: int, *, explain: bool) -> BatchAnalysis | Busy | Unreachable:
        """Ask once.

        A POST, and yet as safe to send again as a GET: an analysis changes nothing on the server and is the same each
        time. So a lost connection and a proxy's 502 or 504 may be tried again, though the server may have had it.
        """
        try:
            answer = self._request(
                "POST", "/analyze_batch", body, explain=explain, seconds=ANSWER_SECONDS, most_bytes=most_bytes
            )
        except Unreachable as trouble:
            return trouble
        if answer.status_code == httpx.codes.OK:
            answered = _parsed(BatchAnalysis, answer)
            self._note_model(answer)
            return answered
        problem = _problem(answer)
        if isinstance(problem, Busy):
            return problem
        raise problem

    def _note_model(self, answer: httpx.Response) -> None:
        """Remember which model answers, and refuse another one."""
        named = answer.headers.get(MODEL_HEADER)
        with self._turn:
            self.model = self.model or named
        if not same_model(self.model, named):
            raise ModelChanged(
                f"the server has changed its model from {self.model} to {named or 'one that it does not name'}"
            )

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        explain: bool = False,
        seconds: float,
        most_bytes: int,
    ) -> httpx.Response:
        try:
            answer = self._exchanges.exchange(
                method, path, body, explain=explain, seconds=seconds, most_bytes=most_bytes
            )
        except httpx.DecodingError:
            raise BadAnswer(f"the answer to {path} can't be decoded") from None
        except AnswerTooLarge:
            raise BadAnswer(
                f"the answer to {path} has more than {most_bytes} bytes, so it is not this server's"
            ) from None
        except httpx.TimeoutException:
            raise Unreachable(f"no answer from {self.address} in time") from None
        except (httpx.TransportError, UnicodeError) as error:  # the latter of a host's name that is too long
            raise Unreachable(f"no server can be reached at {self.address} ({error})") from None
        self._answered = True
        return answer


def server_of(url: str | None) -> str:
    """Return the server's address: the one given, else the environment's, else this machine's."""
    return os.environ.get(SERVER_VARIABLE, DEFAULT_SERVER) if url is None else url


def key_of(key: str | None) -> str:
    """Return the key: the one given, else the environment's, else an empty one."""
    return os.environ.get(KEY_VARIABLE, "") if key is None else key


def same_model(one: str | None, other: str | None) -> bool:
    """Compare two values of X-Model by their fingerprints; a name may change with the folder."""
    return one == other or (
        one is not None and other is not None and one.rpartition("@")[2] == other.rpartition("@")[2]
    )


def as_error(shot: Shot, problem: Problem) -> BatchError:
    """A shot's error where the server said no to all that was sent with it."""
    body = problem.body
    return BatchError(index=0, shot_id=shot.shot_id, type=body.type, title=body.title, detail=body.detail)


def _address(text: str) -> httpx.URL:
    """Nothing of it is repeated: it may hold a password."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise InvalidInput("the server's address can't be read; it looks like http://localhost:8000") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise InvalidInput("the server's address begins with http:// or https://, such as http://localhost:8000")
    if "@" in url.path:
        raise InvalidInput("the server's address has an @ behind its host; in a password, / is written %2F and @ %40")
    return url


def _checked(key: str) -> str:
    """Without a key the server says itself what it wants."""
    if re.search(r"[^\x21-\x7e]", key):
        raise InvalidInput("the key holds a blank or a letter that no key has: they are of ASCII's signs alone")
    return key


def _answer_to(shot: Shot, found: dict[int | str | None, Answer]) -> Answer:
    if shot.shot_id not in found:
        raise BadAnswer(f"the server said nothing about shot {shot.shot_id}")
    return found[shot.shot_id]


def _may_pass(answer: Answer) -> bool:
    return isinstance(answer, BatchError) and answer.type.rpartition(":")[2] in PASSING


def _backoff(attempt: int) -> float:
    """Some 1, 2, 4... seconds before the first, second, third time again, and not the same for all who wait."""
    return min(2.0 ** (attempt - 1), MAX_PAUSE_SECONDS) * random.uniform(0.5, 1)  # noqa: S311 # no secret


def _problem(answer: httpx.Response) -> Problem | BadAnswer:
    """The answer's problem as an error of its own kind."""
    status = answer.status_code
    if status < 400:
        return BadAnswer(f"the server answered with status {status}; is its address right?")
    kind = KINDS.get(status) or (Refused if status < 500 else ServerFailed)
    return kind(_problem_body(answer), _retry_after(answer))


def _problem_body(answer: httpx.Response) -> ProblemBody:
    try:
        body = ProblemBody.model_validate_json(answer.content)
        return body.model_copy(update={"title": body.title[:MOST_LETTERS], "detail": body.detail[:MOST_LETTERS]})
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
