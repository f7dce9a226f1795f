"""The remote engine before small servers with chosen faults. Before the real vLLM: `tests/engines/test_vllm.py`."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import re
import shutil
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from starlette.responses import JSONResponse, RedirectResponse, Response

from engines.base import ShotPictures, ShotReading, Status
from engines.choice import make_engine
from engines.endpoint import KEY_VARIABLE, Endpoint
from engines.line import Line
from engines.pixels import fit_shot
from engines.remote import RemoteEngine
from model_loader import find_picture_spec
from qwen_shots import prompt
from qwen_shots.errors import (
    EngineLoading,
    EngineLost,
    InvalidSettings,
    NotANumber,
    QueueFull,
    ShotFailed,
)
from qwen_shots.scoring import read_score
from settings import Settings
from tests.helpers import BUNDLED, KEY, PATIENCE_SECONDS, ROOT, free_port, scene
from tests.openai_server import DIGITS, WHOLES, FakeServer, begun, pictures_of

# Larger than the bundled checkpoint takes, so that it is scaled.
SHOT = ShotPictures(tuple(scene(number, 360, 640) for number in range(3)))
SMALL = ShotPictures((scene(9, 56, 56),))
READING = read_score(list(WHOLES.values()), list(DIGITS.values()))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that a test can wait for."""
    monkeypatch.setattr("engines.endpoint.FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("engines.remote.FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr("engines.remote.LAST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("engines.line.WATCH_SECONDS", 0.1)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server without faults."""
    fake = FakeServer().start()
    yield fake
    fake.stop()


@pytest.fixture
def other() -> Iterator[FakeServer]:
    """Another one."""
    fake = FakeServer().start()
    yield fake
    fake.stop()


def remote(settings: Settings, *urls: str, **model: Any) -> Settings:
    """The settings with these endpoints."""
    changed = settings.model.model_dump() | {"engine": "remote", "endpoints": list(urls)} | model
    return Settings.model_validate(settings.model_dump() | {"model": changed})


async def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.01)


def run(settings: Settings, scenario: Callable[[RemoteEngine], Awaitable[None]]) -> None:
    """Start an engine, wait until it is healthy, and close it after the scenario.

    No task may be left, and no connection.
    """

    async def play() -> None:
        engine = RemoteEngine(settings)
        await engine.start()
        await until(lambda: engine.status is not Status.LOADING)
        assert engine.status is Status.HEALTHY, engine.failure
        try:
            await scenario(engine)
        finally:
            await engine.close()
            await engine.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    gc.collect()
    with warnings.catch_warnings(record=True) as unclosed:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(play())
        gc.collect()
    assert left_open([str(each.message) for each in unclosed], settings.model.endpoints) == []


def left_open(warned: Sequence[str], endpoints: Sequence[str]) -> list[str]:
    """Without the far ends of its connections: they are the fake server's, which may be cut in any state."""
    ports = "|".join(endpoint.rpartition(":")[2].partition("/")[0] for endpoint in endpoints)
    far_end = re.compile(rf"fd=(\d+)\b.*laddr=\('127\.0\.0\.1', ({ports})\)")
    theirs = {found[1] for message in warned if (found := far_end.search(message))}
    return [
        message for message in warned if not any(f"fd={number}" in re.split(r"[\s,>]+", message) for number in theirs)
    ]


def test_only_the_engines_own_ends_are_its_own() -> None:
    theirs = "unclosed <socket.socket fd=7, family=2, type=1, proto=6, laddr=('127.0.0.1', 81), raddr=('127.0.0.1', 5)>"
    ours = "unclosed <socket.socket fd=78, family=2, type=1, proto=6, laddr=('127.0.0.1', 5), raddr=('127.0.0.1', 81)>"
    transports = [
        f"unclosed transport <_SelectorSocketTransport fd={number} write=<idle, bufsize=0>>" for number in (7, 78)
    ]
    assert left_open([theirs, ours, *transports], ["http://127.0.0.1:81/v1"]) == [ours, transports[1]]


class AtFirst(logging.Handler):
    """Acts once, when a message that begins like this is logged."""

    def __init__(self, message: str, act: Callable[[], object]) -> None:
        super().__init__()
        self._message = message
        self._act = act
        self.acted = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self._message) and not self.acted:
            self.acted = True
            self._act()


def assert_good(answer: ShotReading, shot: ShotPictures, settings: Settings) -> None:
    assert answer.caption == "A fake caption"
    assert list(answer.readings) == list(settings.attributes)
    for readings in answer.readings.values():
        assert len(readings) == len(shot.pictures)
        for reading in readings:
            assert reading.value == pytest.approx(READING.value, abs=1e-6)
            assert reading.spread == pytest.approx(READING.spread, abs=1e-6)
            assert reading.mass == pytest.approx(READING.mass, abs=1e-6)


def of(shot: ShotPictures, settings: Settings) -> Callable[[dict[str, Any]], bool]:
    """Whether a request is about this shot."""
    fitted = fit_shot(shot, find_picture_spec(settings.model.name), settings.model.max_frame_tokens)

    def same(body: dict[str, Any]) -> bool:
        seen = pictures_of(body)
        return bool(seen) and all(map(np.array_equal, seen, fitted.pictures))

    return same


def test_the_settings_choose_the_engine(settings: Settings, server: FakeServer) -> None:
    assert isinstance(make_engine(remote(settings, server.url)), RemoteEngine)
    assert not isinstance(make_engine(settings), RemoteEngine)


def test_a_shot(settings: Settings, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "their-key")
    server.owner = "sglang"

    async def scenario(engine: RemoteEngine) -> None:
        assert (engine.info.model, engine.info.device, engine.failure) == (BUNDLED, "remote", None)
        server.bodies.clear()
        assert_good(await engine.look(SHOT), SHOT, settings)

    run(remote(settings, server.url), scenario)
    questions = sorted(begun(body) for body in server.bodies)
    names = [(picture, name) for name in settings.attributes for picture in (1, 2, 3)]
    stems = [prompt.score_stem(*name) for name in names] + [prompt.score_branch(*name) for name in names]
    assert questions == sorted([prompt.CAPTION_CUE, *stems])
    # The same beginning for all, so that the server computes it once.
    assert all(body["messages"][:2] == server.bodies[0]["messages"][:2] for body in server.bodies)
    assert server.bodies[0]["messages"][0]["content"] == prompt.instruction(settings.attributes)
    assert all(of(SHOT, settings)(body) for body in server.bodies)
    assert {headers.get("authorization") for headers in server.headers} == {"Bearer their-key"}
    assert not any(KEY in str(headers) for headers in server.headers)


def test_the_weights_are_what_the_endpoint_says(settings: Settings, server: FakeServer, other: FakeServer) -> None:
    """The same after each start and at each endpoint of one checkpoint; another checkpoint of that name is another."""

    def weights(*servers: FakeServer) -> str | None:
        found: list[str | None] = []

        async def scenario(engine: RemoteEngine) -> None:
            found.append(engine.info.weights)

        run(remote(settings, *(each.url for each in servers)), scenario)
        return found[0]

    known = weights(server)
    assert known is not None
    assert weights(server) == weights(other) == weights(server, other) == known
    other.root = "a/checkpoint-AWQ"
    assert weights(other) != known


def test_endpoints_that_differ_are_told(
    settings: Settings, server: FakeServer, other: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    other.root = "a/checkpoint-AWQ"

    async def scenario(engine: RemoteEngine) -> None:
        await until(lambda: "another checkpoint" in caplog.text)

    run(remote(settings, server.url, other.url), scenario)


def test_a_checkpoint_that_changes_under_its_name_is_noticed(settings: Settings, server: FakeServer) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        known = engine.info.weights
        server.root = "a/checkpoint-AWQ"
        await until(lambda: engine.info.weights != known)

    run(remote(settings, server.url), scenario)


def test_without_a_key_none_is_sent(settings: Settings, server: FakeServer) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        await engine.look(SMALL)

    run(remote(settings, server.url), scenario)
    assert not any("authorization" in headers for headers in server.headers)


def test_vllm_gets_each_picture_once(settings: Settings, server: FakeServer) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        server.bodies.clear()
        assert_good(await engine.look(SHOT), SHOT, settings)
        assert [len(pictures_of(body)) for body in server.bodies] == [3] + [0] * 36
        server.forgets = True
        server.bodies.clear()
        assert_good(await engine.look(SHOT), SHOT, settings)
        assert sum(len(pictures_of(body)) == 3 for body in server.bodies) == 37

    run(remote(settings, server.url), scenario)


def test_an_older_vllm_that_knows_no_names(settings: Settings, server: FakeServer) -> None:
    def refuse_names(body: dict[str, Any]) -> Response | None:
        named = any(part["image_url"] is None for part in body["messages"][1]["content"])
        return JSONResponse({"error": {"message": "image_url: a string is wanted"}}, 400) if named else None

    async def scenario(engine: RemoteEngine) -> None:
        server.fault = refuse_names
        assert_good(await engine.look(SHOT), SHOT, settings)
        server.bodies.clear()
        assert_good(await engine.look(SHOT), SHOT, settings)
        assert len(server.bodies) == 37

    run(remote(settings, server.url), scenario)


@pytest.mark.parametrize("told", [{"0", "9", "8"}, {"9"}, {"0", "1", "2", "3"}])
def test_labels_outside_of_the_likeliest_tokens_are_asked_for(
    settings: Settings, server: FakeServer, told: set[str]
) -> None:
    server.told = told

    async def scenario(engine: RemoteEngine) -> None:
        answer = await engine.look(SMALL)
        for (reading,) in answer.readings.values():
            assert reading.value == pytest.approx(READING.value, abs=1e-4)
            assert reading.spread == pytest.approx(READING.spread, abs=1e-4)
            if told & set(WHOLES):
                assert reading.mass == pytest.approx(READING.mass, abs=1e-4)
        assert any("response_format" in body for body in server.bodies)

    run(remote(settings, server.url), scenario)


def test_labels_that_weigh_nothing(settings: Settings, server: FakeServer) -> None:
    server.told = set()

    async def scenario(engine: RemoteEngine) -> None:
        answer = await engine.look(SMALL)
        for (reading,) in answer.readings.values():
            assert reading.value == pytest.approx(READING.value, abs=1e-6)
            assert 0 < reading.mass < 0.01

    run(remote(settings, server.url), scenario)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_passes_is_asked_again(settings: Settings, server: FakeServer, status: int) -> None:
    seen: set[str] = set()

    def first_time(body: dict[str, Any]) -> Response | None:
        if begun(body) in seen:
            return None
        seen.add(begun(body))
        return JSONResponse({}, status, headers={"Retry-After": "0"})

    async def scenario(engine: RemoteEngine) -> None:
        server.fault = first_time
        assert_good(await engine.look(SHOT), SHOT, settings)

    run(remote(settings, server.url), scenario)


@pytest.mark.parametrize(("status", "error"), [(500, EngineLost), (400, ShotFailed), (413, ShotFailed)])
def test_a_shot_that_is_never_answered_costs_itself_alone(
    settings: Settings, server: FakeServer, status: int, error: type[Exception]
) -> None:
    server.owner = "sglang"
    bad = of(SMALL, settings)

    async def scenario(engine: RemoteEngine) -> None:
        server.fault = lambda body: JSONResponse({"error": "sesame"}, status) if bad(body) else None
        good = [asyncio.create_task(engine.look(SHOT)) for _ in range(4)]
        with pytest.raises(error) as caught:
            await engine.look(SMALL)
        assert "sesame" not in str(caught.value)
        assert server.url not in str(caught.value)
        for answer in await asyncio.gather(*good):
            assert_good(answer, SHOT, settings)
        assert engine.status is Status.HEALTHY

    run(remote(settings, server.url), scenario)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({}, ShotFailed),
        ({"choices": [{"logprobs": None}]}, ShotFailed),
        ({"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "0", "logprob": None}]}]}}]}, ShotFailed),
        ('{"choices":[{"logprobs":{"content":[{"top_logprobs":[{"token":"0","logprob":NaN}]}]}}]}', NotANumber),
    ],
)
def test_answers_without_numbers(
    settings: Settings, server: FakeServer, answer: dict[str, Any] | str, error: type[Exception]
) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        text = answer if isinstance(answer, str) else JSONResponse(answer).body
        server.fault = lambda body: Response(text, media_type="application/json") if body.get("logprobs") else None
        with pytest.raises(error):
            await engine.look(SMALL)

    run(remote(settings, server.url), scenario)


def test_one_of_two_dies_and_no_shot_is_lost(settings: Settings, server: FakeServer, other: FakeServer) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        await until(lambda: len(engine._up) == 2)
        server.delay = other.delay = 0.02
        shots = [asyncio.create_task(engine.look(SHOT)) for _ in range(12)]
        await until(lambda: len(server.bodies) > 20)
        await asyncio.to_thread(server.stop)
        for answer in await asyncio.gather(*shots):
            assert_good(answer, SHOT, settings)
        await until(lambda: len(engine._up) == 1)
        assert engine.status is Status.HEALTHY
        server.start()
        await until(lambda: len(engine._up) == 2)

    run(remote(settings, server.url, other.url), scenario)


def test_the_only_one_dies_and_comes_back(settings: Settings, server: FakeServer) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        server.delay = 0.05
        shots = [asyncio.create_task(engine.look(SHOT)) for _ in range(30)]
        await until(lambda: len(server.bodies) > 20)
        await asyncio.to_thread(server.stop)
        outcomes = await asyncio.gather(*shots, return_exceptions=True)
        assert any(isinstance(outcome, EngineLost) for outcome in outcomes)
        for outcome in outcomes:
            assert isinstance(outcome, (EngineLost, ShotReading)), outcome
        assert engine.status is Status.DEGRADED
        with pytest.raises(EngineLost):
            await engine.look(SHOT)
        server.delay = 0
        server.start()
        await until(lambda: engine.status is Status.HEALTHY)
        assert_good(await engine.look(SHOT), SHOT, settings)

    run(remote(settings, server.url), scenario)


def test_each_gets_its_share(settings: Settings, server: FakeServer, other: FakeServer) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        await until(lambda: len(engine._up) == 2)
        server.delay = other.delay = 60  # none is answered before all are handed out
        server.bodies.clear()
        other.bodies.clear()
        shots = [asyncio.create_task(engine.look(SMALL)) for _ in range(8)]
        await until(lambda: len(server.bodies) + len(other.bodies) == 8)
        server.delay = other.delay = 0
        await asyncio.gather(*shots)
        assert len(server.bodies) == len(other.bodies) == 4 * 13

    run(remote(settings, server.url, other.url), scenario)


def test_a_slow_one_is_left_for_another(settings: Settings, server: FakeServer, other: FakeServer) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        await until(lambda: len(engine._up) == 2)
        server.delay = 60
        # Small ones: even on a busy machine the other answers each question long before it counts as slow.
        for answer in await asyncio.gather(*(engine.look(SMALL) for _ in range(6))):
            assert_good(answer, SMALL, settings)
        server.delay = 0
        await until(lambda: len(engine._up) == 2)

    run(remote(settings, server.url, other.url, endpoint_timeout=3), scenario)


def test_one_that_serves_another_model_is_left_until_it_serves_ours(settings: Settings, server: FakeServer) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        ours, server.model = server.model, "another"
        with pytest.raises(EngineLost):
            await engine.look(SHOT)
        await until(lambda: engine.status is Status.DEGRADED)
        server.model = ours
        await until(lambda: engine.status is Status.HEALTHY)
        assert_good(await engine.look(SHOT), SHOT, settings)

    run(remote(settings, server.url), scenario)


def test_a_change_of_model_is_noticed_with_nothing_to_do(settings: Settings, server: FakeServer) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        server.model = "another"
        await until(lambda: engine.status is Status.DEGRADED)

    run(remote(settings, server.url), scenario)


def test_requests_at_the_same_time_are_bounded(settings: Settings, server: FakeServer) -> None:
    def hold_what_follows(_: dict[str, Any]) -> None:
        server.delay = 60

    async def scenario(engine: RemoteEngine) -> None:
        server.fault = hold_what_follows  # a shot's first question, whose answer the others wait for
        shots = [asyncio.create_task(engine.look(SHOT)) for _ in range(4)]
        await until(lambda: server.now == 6)
        server.fault = lambda _: None
        server.delay = 0
        await asyncio.gather(*shots)
        assert server.most == 6

    run(remote(settings, server.url, endpoint_requests=6), scenario)


def test_a_client_that_goes_away_takes_its_requests_with_it(settings: Settings, server: FakeServer) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        server.delay = 60
        server.bodies.clear()
        looking = asyncio.create_task(engine.look(SHOT))
        await until(lambda: bool(server.bodies))
        looking.cancel()
        await until(lambda: server.dropped == 1)
        server.delay = 0
        assert_good(await engine.look(SHOT), SHOT, settings)

    run(remote(settings, server.url), scenario)


def test_a_client_that_goes_away_while_dead_connections_are_closed(
    settings: Settings, server: FakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first of them is being closed, by the shot's request, when the shot is given up."""
    monkeypatch.setattr("engines.line.WATCH_SECONDS", 60.0)  # not the watch's request
    caplog.set_level(logging.DEBUG, "httpcore.connection")
    log = logging.getLogger("httpcore.connection")

    async def scenario(engine: RemoteEngine) -> None:
        server.delay = 0.02
        await engine.look(SHOT)
        await asyncio.to_thread(server.stop)
        looking = asyncio.create_task(engine.look(SMALL))
        go_away = AtFirst("close.started", looking.cancel)
        log.addHandler(go_away)
        with pytest.raises(asyncio.CancelledError):
            await looking
        log.removeHandler(go_away)
        assert go_away.acted

    run(remote(settings, server.url), scenario)


def test_a_request_that_is_cancelled_again_and_again_goes_away(settings: Settings, server: FakeServer) -> None:
    async def play() -> None:
        endpoint = Endpoint(server.url, remote(settings, server.url).model)
        asking = asyncio.create_task(endpoint.ask(b"{}"))
        await until(lambda: server.now == 1)
        while not asking.done():
            asking.cancel()
            await asyncio.sleep(0)
        try:
            await until(lambda: server.dropped == 1)
        finally:
            await endpoint.close()

    server.delay = 60
    asyncio.run(play())


def test_a_full_queue(settings: Settings, server: FakeServer) -> None:
    limits = settings.server.model_copy(update={"max_queue_shots": 2})

    async def scenario(engine: RemoteEngine) -> None:
        server.delay = 60
        server.bodies.clear()
        shots = [asyncio.create_task(engine.look(SMALL))]
        await until(lambda: bool(server.bodies))
        shots += [asyncio.create_task(engine.look(SMALL)) for _ in range(2)]
        await until(lambda: engine.full is not None)
        assert engine.queue_depth == 2
        assert engine.retry_after >= 1
        with pytest.raises(QueueFull):
            await engine.look(SMALL)
        for shot in shots:
            shot.cancel()
        await asyncio.gather(*shots, return_exceptions=True)

    run(remote(settings.model_copy(update={"server": limits}), server.url, endpoint_requests=1), scenario)


def test_a_stop_finishes_what_is_in_hand(settings: Settings, server: FakeServer) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        server.delay = 60
        shots = [asyncio.create_task(engine.look(SHOT)) for _ in range(3)]
        await until(lambda: len(engine._in_hand) == len(shots) and server.now > 0)
        server.delay = 0.05
        await engine.close()
        for shot in shots:
            assert_good(shot.result(), SHOT, settings)

    run(remote(settings, server.url), scenario)


def failure_of(settings: Settings) -> str:
    """Why an engine can't start."""

    async def play() -> str:
        engine = RemoteEngine(settings)
        await engine.start()
        with pytest.raises(EngineLoading):
            await engine.look(SMALL)
        await until(lambda: engine.status is Status.FAILED)
        await engine.close()
        return engine.failure or ""

    return asyncio.run(play())


def test_a_start_before_the_wrong_model(settings: Settings, server: FakeServer) -> None:
    server.model = "another"
    assert "serves another, not models/qwen2-vl-film-tiny (model.name)" in failure_of(remote(settings, server.url))


def test_a_start_with_the_wrong_key(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(key="their-key").start()
    monkeypatch.setenv(KEY_VARIABLE, "not-theirs")
    failure = failure_of(remote(settings, server.url))
    server.stop()
    assert KEY_VARIABLE in failure
    assert "not-theirs" not in failure
    monkeypatch.setenv(KEY_VARIABLE, "two words")
    with pytest.raises(InvalidSettings, match=KEY_VARIABLE):
        make_engine(remote(settings, server.url))


def test_a_proxy_that_can_not_be_used_is_named_unless_the_endpoint_is_here(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")  # which needs a package that is not installed
    with pytest.raises(InvalidSettings, match="the proxy that the environment names"):
        make_engine(remote(settings, "http://gpu-1:8000"))
    make_engine(remote(settings, "http://127.0.0.1:8000"))


def test_a_start_before_a_model_without_numbers(settings: Settings, server: FakeServer) -> None:
    server.fault = lambda _: JSONResponse({"choices": [{"logprobs": None}]})
    assert "does not answer: the endpoint's answer holds no log prob" in failure_of(remote(settings, server.url))


def test_a_start_without_the_picture_format(settings: Settings, server: FakeServer) -> None:
    assert "there is no folder ./nowhere" in failure_of(remote(settings, server.url, name="./nowhere"))


def test_a_start_with_a_picture_format_that_is_none(settings: Settings, server: FakeServer, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROOT / BUNDLED, tmp_path / "model"))
    for name in ("preprocessor_config.json", "processor_config.json"):
        (folder / name).write_text("{")
    assert "model" in failure_of(remote(settings, server.url, name=str(folder)))


def test_an_endpoint_that_begins_with_nonsense_is_asked_again(settings: Settings, server: FakeServer) -> None:
    server.fault = lambda _: Response("[" * 100_000, media_type="application/json")

    async def play() -> None:
        engine = RemoteEngine(remote(settings, server.url))
        await engine.start()
        await until(lambda: bool(server.bodies))
        await asyncio.sleep(0.1)
        assert engine.status is Status.LOADING
        server.fault = lambda _: None
        await until(lambda: engine.status is Status.HEALTHY)
        await engine.close()

    asyncio.run(play())


def test_an_unforeseen_error_is_not_the_end_of_an_endpoint(
    settings: Settings, server: FakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exact = Line._until_doubt
    go_wrong = asyncio.Event()

    async def until_wrong(line: Line) -> None:
        if go_wrong.is_set():
            await exact(line)
        else:
            await go_wrong.wait()
            raise ZeroDivisionError

    async def scenario(engine: RemoteEngine) -> None:
        came = len(caplog.records)
        go_wrong.set()
        await until(lambda: "unexpected error" in caplog.text and len(caplog.records) > came)
        await until(lambda: engine.status is Status.HEALTHY)
        assert_good(await engine.look(SMALL), SMALL, settings)

    monkeypatch.setattr(Line, "_until_doubt", until_wrong)
    run(remote(settings, server.url), scenario)


def test_an_endpoint_that_fails_every_shot_is_doubted(
    settings: Settings, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        server.fault = lambda _: JSONResponse({"choices": [{"logprobs": None}]})
        for number in range(3):
            with pytest.raises(ShotFailed):
                await engine.look(ShotPictures((scene(number, 56, 56),)))
        await until(lambda: engine.status is Status.DEGRADED)
        server.fault = lambda _: None
        await until(lambda: engine.status is Status.HEALTHY)

    run(remote(settings, server.url), scenario)
    assert "it serves the model but does not answer" in caplog.text


def test_an_endpoint_whose_numbers_are_few_is_warned_of(
    settings: Settings, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.told = set()

    async def scenario(engine: RemoteEngine) -> None:
        """Nothing to do: the warning comes at the start."""

    run(remote(settings, server.url), scenario)
    assert "processing.least_mass" in caplog.text
    caplog.clear()
    server.told = None
    run(remote(settings, server.url), scenario)
    assert "processing.least_mass" not in caplog.text


def test_an_endpoint_that_comes_later_is_waited_for(settings: Settings) -> None:
    server = FakeServer()

    async def play() -> None:
        engine = RemoteEngine(remote(settings, server.url))
        await engine.start()
        await asyncio.sleep(0.3)
        assert engine.status is Status.LOADING
        server.start()
        await until(lambda: engine.status is Status.HEALTHY)
        await engine.close()

    asyncio.run(play())
    server.stop()


def test_an_endpoint_that_never_comes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.remote.START_SECONDS", 0.2)
    assert "no connection" in failure_of(remote(settings, f"http://127.0.0.1:{free_port()}"))


def test_no_redirect_is_followed(settings: Settings, server: FakeServer, other: FakeServer) -> None:
    async def scenario(engine: RemoteEngine) -> None:
        server.fault = lambda _: RedirectResponse(f"{other.url}/chat/completions", 307)
        with pytest.raises(ShotFailed, match="307"):
            await engine.look(SMALL)
        assert not other.bodies

    run(remote(settings, server.url), scenario)


def test_certificates_are_checked(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = FakeServer().start(ssl_certfile=tmp_path / "server.pem")
    url = server.url.replace("http://", "https://")

    async def scenario(engine: RemoteEngine) -> None:
        assert_good(await engine.look(SHOT), SHOT, settings)

    with monkeypatch.context() as patch:
        patch.setattr("engines.remote.START_SECONDS", 0.2)
        assert "certificate" in failure_of(remote(settings, url)).lower()
        assert not server.headers
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    run(remote(settings, url), scenario)
    server.stop()


def test_the_fakes_chances_are_chances() -> None:
    assert math.isclose(sum(DIGITS.values()), 55 / 60)
    assert READING.mode == 0.9
