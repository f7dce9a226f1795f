"""The quick half of `make stress`: the same attacks, fewer of each."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.soak import Sample, judge
from benchmarks.stress import (
    bodies,
    chunks,
    crowds,
    floods,
    json_texts,
    large_batches,
    malformed,
    openapi,
    overload,
    requests,
    signals,
)
from benchmarks.stress.bars import Bar, at_most, none_of, table
from benchmarks.stress.kinds import KINDS
from tests.helpers import PATIENCE_SECONDS


def assert_held(bars: Sequence[Bar]) -> None:
    assert all(bar.held for bar in bars), "\n" + table(bars)


def test_malformed_requests() -> None:
    assert len(KINDS) >= 40
    refused, alive, _ = malformed.check(2 * len(KINDS))  # memory needs more requests than these
    assert_held([refused, alive])


# How fast depends on the machine; what is answered, and how much memory it takes, does not.
def of_no_clock(bars: Sequence[Bar]) -> list[Bar]:
    return [bar for bar in bars if not bar.limit.endswith((" s", "server", "request"))]


def test_requests_as_http_allows_and_forbids_them() -> None:
    bars = of_no_clock(requests.check(2 * len(requests.KINDS)))
    assert_held([bar for bar in bars if "memory" not in bar.limit])  # that needs more requests than these


def test_bodies_that_cost_more_than_their_size() -> None:
    assert_held(of_no_clock(bodies.check(mib=20)))


def test_chunks_of_one_byte() -> None:
    assert_held(of_no_clock(chunks.check((8,), seconds=1)))


def test_a_batch_of_frames_at_8k() -> None:
    assert_held(of_no_clock(large_batches.check(batches=1, shots=3, frames=3)))


def test_texts_that_are_no_json() -> None:
    assert_held(json_texts.check([]))


def test_requests_made_up_from_the_openapi_text() -> None:
    assert_held(openapi.check(60, phases="fuzzing"))


def test_a_flood_without_a_key() -> None:
    # When the answer comes depends on the machine; that it comes before the body, test_hostile holds.
    assert_held([bar for bar in floods.check() if not bar.limit.endswith(" s")])


def test_a_stop_in_a_batch_and_kills_of_engine_and_server() -> None:
    assert_held(signals.check(1))


def test_more_than_it_can_take() -> None:
    bars = overload.check(4, burst=300, patience=PATIENCE_SECONDS)
    # How fast depends on the machine; what is answered does not.
    assert_held([bar for bar in bars if bar.limit.startswith("no ")])


def test_clients_that_go_away() -> None:
    assert_held(crowds.check_leavers(40, within=PATIENCE_SECONDS))


def test_a_bar_that_is_missed_is_told() -> None:
    bars = [at_most("a", 2, 1, "s"), none_of("b", "failure", ["x", "y"]), at_most("c", 1, 1, "s")]
    assert [bar.held for bar in bars] == [False, False, True]
    assert table(bars).count("MISSED") == 2


def test_a_leak_is_seen_in_a_soak() -> None:
    leaking = [{"server": Sample(100 + number, 5, 20)} for number in range(40)]
    assert [bar.held for bar in judge(leaking)] == [False, True, True]
    flat = [{"server": Sample(100 + number % 3, 5, 20)} for number in range(40)]
    assert_held(judge(flat))
