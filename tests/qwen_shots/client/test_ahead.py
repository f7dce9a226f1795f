"""The pipeline's joints: bounded, in order, and nothing is lost when something fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from qwen_shots.client.ahead import Ahead, Aside
from tests.helpers import PATIENCE_SECONDS


def counted(made: list[int], count: int, error: Exception | None = None) -> Iterator[int]:
    for number in range(count):
        made.append(number)
        yield number
    if error:
        raise error


def test_all_items_come_in_order() -> None:
    assert list(Ahead([range(1000)], 3)) == list(range(1000))


def test_no_more_is_made_than_may_wait() -> None:
    made: list[int] = []
    with Ahead([counted(made, 1000)], 4) as ahead:
        for taken in range(1, 20):
            assert ahead.take(1)
            time.sleep(0.005)
            assert len(made) <= taken + 4 + 1  # and one that waits to be let in


def test_what_is_there_is_taken_together() -> None:
    with Ahead([range(10)], 10) as ahead:
        ahead.join()
        assert ahead.take(4) == [0, 1, 2, 3]
        assert ahead.take(100) == [4, 5, 6, 7, 8, 9]
        assert ahead.take(100) == []


def test_several_sources_feed_several_takers() -> None:
    ahead = Ahead([range(300), range(300, 600), range(600, 900)], 5)
    taken: list[int] = []
    takers = [threading.Thread(target=lambda: taken.extend(ahead)) for _ in range(4)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(PATIENCE_SECONDS)
    assert sorted(taken) == list(range(900))


def test_a_failure_comes_after_everything_else_and_to_everyone() -> None:
    ahead = Ahead([counted([], 3, ValueError("no more")), counted([], 5)], 100)
    taken = []
    for _ in range(8):
        taken += ahead.take(1)
    assert sorted(taken) == [0, 0, 1, 1, 2, 2, 3, 4]
    for _ in range(2):
        with pytest.raises(ValueError, match="no more"):
            ahead.take(1)


def test_close_ends_the_sources_and_the_takers() -> None:
    made: list[int] = []
    first = Ahead([counted(made, 10**9)], 2)
    second = Ahead([(number for number in first)], 2)
    assert next(second) == 0
    first.close()
    second.close()
    first.join()
    second.join()
    assert not any(thread.is_alive() for thread in (*first._threads, *second._threads))
    assert len(made) < 20


def test_the_rest_of_a_closed_one_is_what_was_under_way() -> None:
    begun, go = threading.Event(), threading.Event()

    def slow() -> Iterator[str]:
        begun.set()
        go.wait(PATIENCE_SECONDS)
        yield "under way"
        yield "not wanted"

    ahead = Ahead([slow()], 1)
    assert begun.wait(PATIENCE_SECONDS)
    ahead.close()
    assert list(ahead.rest(0.05)) == []
    go.set()
    assert list(ahead.rest(PATIENCE_SECONDS)) == ["under way"]


def test_what_runs_aside_needs_no_taker() -> None:
    made: list[int] = []
    aside = Aside(counted(made, 1000, ValueError("no more")))
    aside.join()
    assert len(made) == 1000
    taken = [next(aside) for _ in range(1000)]
    assert taken == made
    for _ in range(2):
        with pytest.raises(ValueError, match="no more"):
            next(aside)
    assert list(Aside(range(3))) == [0, 1, 2]
