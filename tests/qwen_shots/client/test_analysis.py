"""A film from its file to answers in a folder: all of them, once, in spite of everything."""

from __future__ import annotations

import _thread
import asyncio
import itertools
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing, suppress
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

import qwen_shots
from qwen_shots.client.ahead import Ahead, Aside
from qwen_shots.client.analysis import FilmRun, Prepared, analyze, analyze_async
from qwen_shots.client.api import ShotClient
from qwen_shots.client.describe import describe
from qwen_shots.client.errors import (
    BadAnswer,
    BadGateway,
    Busy,
    CannotStore,
    FilmCutShort,
    OtherFilm,
    ServerError,
    Unauthorized,
    Unreachable,
)
from qwen_shots.client.shots import find_shots
from qwen_shots.client.store import FILE_NAME, FilmRecord, ShotRecord, open_store
from qwen_shots.client.writer import Answered, StoreWriter
from tests.helpers import KEY, ROOT, free_port
from tests.qwen_shots.client.answering import AnsweringServer
from tests.qwen_shots.client.clips import RATE, picture, write_film
from tests.qwen_shots.client.test_api import Told, make, problem, rows

COUNT = 9


def stored(folder: Path) -> list[ShotRecord]:
    """All that is known but when."""
    with open_store(folder) as store:
        return [replace(shot, answered_at=None) for shot in store.shots()]


def answered(folder: Path) -> list[int]:
    return [shot.number for shot in stored(folder) if shot.analysed]


def test_all_shots_come_in_order_and_are_stored(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    shots = list(analyze(film, server.url, key=KEY, folder=tmp_path))
    assert [(shot.start, shot.end) for shot in shots] == [(shot.start, shot.end) for shot in find_shots(film)]
    assert [shot.number for shot in shots] == list(range(1, COUNT + 1))
    assert [shot.first_frame for shot in shots] == [0, 30, 60, 84, 114, 144, 168, 198, 228]
    assert all(shot.analysed and shot.thumbnail and shot.audio_class for shot in shots)
    assert server.asked == dict.fromkeys(range(1, COUNT + 1), 1)
    with open_store(tmp_path) as store:
        assert store.shots() == shots
        assert store.complete
        assert (store.film.width, store.film.height) == (160, 96)
        assert store.film.frame_rate == RATE
        assert store.film.duration == pytest.approx(252 / RATE)


def test_how_a_shot_begins_and_its_bars_are_stored(server: AnsweringServer, tmp_path: Path) -> None:
    bars = ((32, 32), (0, 0), (0, 0))
    pictures = [np.pad(picture(0, scene), bars) for scene in (0, 1) for _ in range(30)]
    shots = list(analyze(write_film(tmp_path / "a.mp4", pictures), server.url, key=KEY, folder=tmp_path / "out"))
    assert [shot.transition for shot in shots] == [None, "cut"]
    for shot in shots:
        assert shot.active_picture is not None
        assert astuple(shot.active_picture) == pytest.approx((0, 0.2, 1, 0.8), abs=0.01)
        assert shot.active_picture.bars == pytest.approx(0.4, abs=0.02)


def test_again_asks_nothing(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    first = list(analyze(film, server.url, key=KEY, folder=tmp_path))
    again = list(analyze(film, f"http://127.0.0.1:{free_port()}", key=KEY, folder=tmp_path))
    assert again == first


def test_without_a_folder_nothing_stays(
    film: Path, server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert len(list(analyze(film, server.url, key=KEY))) == COUNT
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("answered", [1, 4])
def test_a_run_that_is_left_goes_on(film: Path, server: AnsweringServer, tmp_path: Path, answered: int) -> None:
    whole = tmp_path / "whole"
    list(analyze(film, server.url, key=KEY, folder=whole))
    server.asked.clear()
    part = tmp_path / "part"
    leaving = analyze(film, server.url, key=KEY, folder=part)
    for _ in range(answered):
        next(leaving)
    leaving.close()
    list(analyze(film, server.url, key=KEY, folder=part))
    assert stored(part) == stored(whole)
    assert server.asked == dict.fromkeys(range(1, COUNT + 1), 1)


@pytest.mark.usefixtures("patient")
def test_a_run_that_is_left_while_an_answer_is_stored_stores_what_comes_after_it_too(
    film: Path, server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, stores = itertools.count(1), itertools.count(1)
    under_way, storing, left = (threading.Event() for _ in range(3))
    store, stop = StoreWriter.add_answers, FilmRun.stop

    def third_is_under_way(_: list[int]) -> None:
        if next(requests) > 2:
            under_way.set()
            left.wait(60)

    def second_takes_long(self: StoreWriter, answers: Sequence[Answered]) -> None:
        if next(stores) == 2:
            storing.set()
            left.wait(60)
        store(self, answers)

    def stopped(self: FilmRun) -> None:
        stop(self)
        left.set()

    server.before = third_is_under_way
    monkeypatch.setattr(StoreWriter, "add_answers", second_takes_long)
    monkeypatch.setattr(FilmRun, "stop", stopped)
    with ShotClient(server.url, KEY, batch_size=1) as client:
        leaving = analyze(film, client, folder=tmp_path)
        next(leaving)
        assert under_way.wait(60)
        assert storing.wait(60)
        leaving.close()
    assert sum(shot.analysed for shot in stored(tmp_path)) == sum(server.asked.values()) > 2


def test_a_failed_shot_is_told_and_tried_again_only_when_asked_to(
    film: Path, server: AnsweringServer, tmp_path: Path
) -> None:
    server.failing = {2, 5}
    shots = list(analyze(film, server.url, key=KEY, folder=tmp_path))
    assert [shot.number for shot in shots if shot.failed] == [2, 5]
    assert shots[1].error is not None
    assert shots[1].error.detail == "NaN came out"
    assert shots[1].thumbnail
    server.failing = {5}
    server.asked.clear()
    list(analyze(film, server.url, key=KEY, folder=tmp_path))
    assert not server.asked
    with ShotClient(server.url, KEY) as client, FilmRun(film, client, tmp_path, retry_failed=True) as run:
        assert run.expected == 2
        assert sorted(number for numbers in run.answers() for number in numbers) == [2, 5]
    assert server.asked == {2: 1, 5: 1}
    assert [(shot.number, shot.attempts) for shot in stored(tmp_path) if shot.failed] == [(5, 2)]
    assert stored(tmp_path)[1].analysed


@pytest.mark.parametrize("status", [503, 502, 504])
def test_a_busy_server_and_one_that_is_away_behind_a_proxy_are_waited_for(
    film: Path, server: AnsweringServer, status: int
) -> None:
    async def asynchronous() -> list[ShotRecord]:
        return [shot async for shot in analyze_async(film, server.url, key=KEY)]

    def synchronous() -> list[ShotRecord]:
        return list(analyze(film, server.url, key=KEY))

    for shots_of in (synchronous, lambda: asyncio.run(asynchronous())):
        server.busy, server.busy_status = 3, status
        assert sum(shot.analysed for shot in shots_of()) == COUNT
        assert server.busy == 0


def test_a_server_that_stays_away_behind_a_proxy_loses_nothing(
    film: Path, server: AnsweringServer, tmp_path: Path
) -> None:
    """Its shots have not failed: the same call goes on with them."""
    server.status = 502
    with (
        ShotClient(server.url, KEY, retries=1, sleep=lambda _: None) as client,
        pytest.raises(BadGateway),
        FilmRun(film, client, tmp_path) as run,
    ):
        list(run.answers())
    server.status = 200
    assert all(shot.analysed and shot.attempts == 1 for shot in analyze(film, server.url, key=KEY, folder=tmp_path))


def test_a_dead_server_loses_nothing(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    server.dies_after = 4
    told: list[int] = []
    with (
        ShotClient(server.url, KEY, retries=0, batch_size=1) as client,
        pytest.raises(Unreachable),
        FilmRun(film, client, tmp_path) as run,
    ):
        for numbers in run.answers():
            told += numbers
    assert len(told) == 4
    assert [shot.number for shot in stored(tmp_path) if shot.analysed] == sorted(told)
    with AnsweringServer() as other:
        list(analyze(film, other.url, key=KEY, folder=tmp_path))
        assert sorted([*told, *other.asked]) == list(range(1, COUNT + 1))


def test_what_was_answered_of_a_batch_goes_to_the_store_before_the_rest_fails(film: Path, tmp_path: Path) -> None:
    """A shot of a batch is lost, and the server is busy for too long when that one is sent again."""
    told = Told(rows(fail="engine-lost", failing=2), problem(503))
    with told as client, FilmRun(film, client, tmp_path) as run:
        ready = Ahead([[Prepared(make(number), None, b"jpeg") for number in (1, 2, 3)]], 3)
        ready.join()
        asked = run._asked(ready)
        assert [(each.number, each.thumbnail) for each in next(asked)] == [(1, b"jpeg"), (3, b"jpeg")]
        with pytest.raises(Busy):
            next(asked)


@pytest.mark.parametrize(
    ("health", "status", "error"),
    [(401, 401, Unauthorized), (200, 401, Unauthorized), (404, 404, BadAnswer), (200, 404, None), (500, 500, None)],
)
def test_what_a_server_says_no_with(
    film: Path, server: AnsweringServer, tmp_path: Path, health: int, status: int, error: type[ServerError] | None
) -> None:
    """A wrong key ends the run, and so does a server that is none of ours; else its shots bear the reason."""
    server.status, server.refuses = health, status
    if error:
        with pytest.raises(error):
            list(analyze(film, server.url, key="wrong", folder=tmp_path))
        assert not any(shot.attempts for shot in stored(tmp_path))
    else:
        shots = list(analyze(film, server.url, key=KEY, folder=tmp_path))
        assert [shot.error.detail for shot in shots if shot.error] == ["not now"] * COUNT


def test_a_film_that_is_cut_short_is_analysed_as_far_as_its_shots_are_sure(
    film: Path, server: AnsweringServer, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.mp4"
    whole = film.read_bytes()
    cut.write_bytes(whole[: int(0.7 * len(whole))])
    seen = []
    with pytest.raises(FilmCutShort, match="ends after"):
        for shot in analyze(cut, server.url, key=KEY, folder=tmp_path / "out"):
            seen.append(shot.number)
    assert seen == list(range(1, len(seen) + 1))
    assert 4 <= len(seen) < COUNT
    with open_store(tmp_path / "out") as store:
        assert not store.complete
        assert [shot.number for shot in store.shots() if shot.analysed] == seen


def test_a_full_disk_stops_the_run_and_loses_nothing(
    film: Path, server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_answers = StoreWriter.add_answers
    calls: list[int] = []

    def fill(self: StoreWriter, answers: list[Answered]) -> None:
        if len(calls) == 1:
            (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
            self._connection.execute(f"PRAGMA max_page_count = {pages}")
        calls.append(len(answers))
        add_answers(self, [replace(answer, thumbnail=bytes(100_000)) for answer in answers])

    monkeypatch.setattr(StoreWriter, "add_answers", fill)
    with (
        ShotClient(server.url, KEY, batch_size=1) as client,
        pytest.raises(CannotStore, match="full"),
        FilmRun(film, client, tmp_path) as run,
    ):
        list(run.answers())
    assert sum(shot.analysed for shot in stored(tmp_path)) == calls[0]
    monkeypatch.undo()
    assert all(shot.analysed for shot in analyze(film, server.url, key=KEY, folder=tmp_path))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("stored_first", [False, True])
def test_ctrl_c_while_an_answer_is_stored_loses_nothing(
    film: Path, server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored_first: bool
) -> None:
    store = StoreWriter.add_answers
    pressed: list[bool] = []

    def interrupted(self: StoreWriter, answers: Sequence[Answered]) -> None:
        if stored_first:
            store(self, answers)
        if not pressed:  # a second time would fall into the leaving, which a user would press it to break off
            pressed.append(True)
            _thread.interrupt_main()  # raises in the main thread, as soon as that one runs
            time.sleep(0.05)
        if not stored_first:
            store(self, answers)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StoreWriter, "add_answers", interrupted)
        list(analyze(film, server.url, key=KEY, folder=tmp_path))
    assert server.asked
    list(analyze(film, server.url, key=KEY, folder=tmp_path))
    assert server.asked == dict.fromkeys(range(1, COUNT + 1), 1)


def test_ctrl_c_where_a_lock_was_just_taken_loses_nothing(
    film: Path, server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python may raise it there, and nobody lets go of the lock."""
    armed: list[bool] = []
    enter = threading.Condition.__enter__

    def interrupted(self: threading.Condition) -> bool:
        entered = enter(self)
        # By its number: current_thread() makes up a thread for one that is just being started, which comes here too.
        if armed and threading.get_ident() == threading.main_thread().ident:
            armed.clear()
            raise KeyboardInterrupt
        return entered

    monkeypatch.setattr(threading.Condition, "__enter__", interrupted)
    server.delay = 0.1
    with ShotClient(server.url, KEY, batch_size=1) as client, FilmRun(film, client, tmp_path) as run:
        answers = run.answers()
        next(answers)
        armed.append(True)
        with suppress(KeyboardInterrupt):
            list(answers)
        armed.clear()
    assert server.asked == dict.fromkeys(answered(tmp_path), 1)


@pytest.mark.usefixtures("patient")
def test_a_second_ctrl_c_loses_no_answer_that_came_after_the_first(
    film: Path, server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is under way when somebody stops; it is answered, and then he stops waiting for another that never is."""
    stopped, never, held = threading.Event(), threading.Event(), threading.Event()
    known: list[list[int]] = []

    def hold(numbers: list[int]) -> None:
        if numbers == [2]:
            held.set()
            stopped.wait(30)
        elif numbers != [1]:
            never.wait(30)

    def impatient(_: Aside[int]) -> None:
        stopped.set()
        deadline = time.monotonic() + 20
        while len(done := answered(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        known.append(done)
        raise KeyboardInterrupt

    server.before = hold
    with ShotClient(server.url, KEY, batch_size=1) as client, pytest.raises(KeyboardInterrupt):
        run = FilmRun(film, client, tmp_path)
        next(run.answers())
        assert held.wait(30)
        monkeypatch.setattr(Aside, "join", impatient)
        run.close()
    never.set()
    assert known[0] == answered(tmp_path) == [1, 2]


def test_given_shots(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    given = [
        ShotRecord(1, 0.5, 1.0, 12, 24, name="one"),
        ShotRecord(2, 2.0, 3.0, 48, 72, name="two"),
    ]
    shots = list(analyze(film, server.url, key=KEY, folder=tmp_path, shots=given))
    assert [(shot.name, shot.start, shot.analysed) for shot in shots] == [("one", 0.5, True), ("two", 2.0, True)]
    with pytest.raises(OtherFilm, match="shot list"):
        list(analyze(film, server.url, key=KEY, folder=tmp_path))


def test_cuts_that_moved_are_not_mixed(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    leaving = analyze(film, server.url, key=KEY, folder=tmp_path)
    next(leaving)
    leaving.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection, connection:
        connection.execute("UPDATE shot SET end_frame = end_frame + 1 WHERE number = 1")
        connection.execute("UPDATE film SET complete = 0")
    with pytest.raises(OtherFilm, match="elsewhere"):
        list(analyze(film, server.url, key=KEY, folder=tmp_path))


def test_async(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    """Each answer waits until the loop has run: it was free."""
    ran = threading.Semaphore(0)
    in_time: list[bool] = []
    server.before = lambda _: in_time.append(ran.acquire(timeout=30))

    async def main() -> list[ShotRecord]:
        async def run() -> None:
            while True:
                await asyncio.sleep(0.01)
                ran.release()

        running = asyncio.create_task(run())
        shots = [shot async for shot in analyze_async(film, server.url, key=KEY, folder=tmp_path)]
        running.cancel()
        return shots

    assert [shot.number for shot in asyncio.run(main())] == list(range(1, COUNT + 1))
    assert in_time
    assert all(in_time)


async def cancelled(analysis: AsyncGenerator[ShotRecord, None], begun: threading.Event, go_on: threading.Event) -> None:
    """Run an analysis and cancel it when it has begun something, which then goes on."""

    async def all_of_it() -> None:
        async for _ in analysis:
            pass

    task = asyncio.create_task(all_of_it())
    assert await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    await asyncio.sleep(0.05)  # it has been told
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_async_is_cancelled_before_it_has_begun(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that opens the film's folder can't be stopped; nothing that it opens stays open."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(path: Path, cut_by: str) -> FilmRecord:
        begun.set()
        go_on.wait(30)
        return describe(path, cut_by)

    monkeypatch.setattr("qwen_shots.client.analysis.describe", slow)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asyncio.run(cancelled(analyze_async(film, f"http://127.0.0.1:{free_port()}", key=KEY), begun, go_on))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("patient")
def test_async_is_cancelled(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    """What was under way is answered and stored."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: list[int]) -> None:
        begun.set()
        go_on.wait(30)

    server.before = hold
    asyncio.run(cancelled(analyze_async(film, server.url, key=KEY, folder=tmp_path), begun, go_on))
    assert server.asked
    assert all(shot.analysed for shot in analyze(film, server.url, key=KEY, folder=tmp_path))
    assert server.asked == dict.fromkeys(range(1, COUNT + 1), 1)


def test_at_the_top_of_the_package(film: Path, server: AnsweringServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A film's name and nothing else: the server and its key are the environment's."""
    monkeypatch.setenv("QWEN_SHOTS_SERVER", server.url)
    monkeypatch.setenv("QWEN_SHOTS_KEY", KEY)
    shots = list(qwen_shots.analyze(str(film)))
    assert [shot.number for shot in shots] == list(range(1, 10))
    assert all(shot.analysed for shot in shots)


def test_again_in_python(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    server.captions = dict.fromkeys(range(1, 10), "before")
    list(analyze(film, server.url, key=KEY, folder=tmp_path))
    server.captions = dict.fromkeys(range(1, 10), "after")
    again = analyze(str(film), server.url, key=KEY, folder=str(tmp_path), again=True)
    assert [shot.caption for shot in again] == ["after"] * 9


def test_the_package_imports_nothing_before_it_is_used() -> None:
    code = (
        "import sys, qwen_shots; assert 'analyze' in qwen_shots.__all__; "
        "sys.exit(' '.join({'av', 'numpy', 'PIL', 'httpx', 'pydantic', 'cv2'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    with pytest.raises(AttributeError, match="nonsense"):
        qwen_shots.nonsense  # noqa: B018


def test_a_folder_goes_on_with_the_detector_that_found_its_shots(
    film: Path, server: AnsweringServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version had another default: the same command still goes on, with the cuts as they were."""
    server.failing = {2}
    before = list(analyze(film, server.url, key=KEY, folder=tmp_path, detector="content"))
    server.failing = set()
    with ShotClient(server.url, KEY) as client, FilmRun(film, client, tmp_path, retry_failed=True) as run:
        assert list(run.answers()) == [[2]]
        after = run.store.shots()
    assert [(shot.start, shot.end_frame) for shot in after] == [(shot.start, shot.end_frame) for shot in before]
    with pytest.raises(OtherFilm, match="content"):
        list(analyze(film, server.url, key=KEY, folder=tmp_path, detector="structure"))
