"""The queue: who goes first, what a batch holds, when it is full, and who is given up."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from engines.base import ShotPictures
from engines.scheduler import ShotQueue
from qwen_shots.errors import EngineLost, QueueFull
from tests.helpers import scene

SHOT = ShotPictures((scene(1, 56, 56),))


def until(deadline: float) -> ShotPictures:
    return replace(SHOT, deadline=deadline)


def test_the_queue_fills_batches_up_to_the_budget() -> None:
    async def scenario() -> None:
        queue = ShotQueue(max_shots=4, max_tokens=1000)
        answers = [queue.put(SHOT, tokens) for tokens in (60, 40, 10, 500)]
        with pytest.raises(QueueFull) as full:
            queue.put(SHOT, 1)
        assert full.value.retry_after >= 1
        answers[1].cancel()  # its client went away: it is never looked at
        batch = await queue.take(budget=70)
        assert [pending.tokens for pending in batch] == [60, 10]
        assert [pending.tokens for pending in await queue.take(budget=70)] == [500]

    asyncio.run(scenario())


def test_no_engine_takes_more_than_its_share() -> None:
    async def scenario() -> None:
        queue = ShotQueue(max_shots=100, max_tokens=1000)
        queue.servers = 3
        answers = [queue.put(SHOT, 10) for _ in range(16)]
        assert [len(await queue.take(budget=50)) for _ in range(6)] == [5, 4, 3, 2, 1, 1]
        assert not any(answer.done() for answer in answers)

    asyncio.run(scenario())


def test_the_queue_is_full_by_tokens_too_and_who_leaves_makes_room() -> None:
    async def scenario() -> None:
        queue = ShotQueue(max_shots=9, max_tokens=100)
        first, second = queue.put(SHOT, 60), queue.put(SHOT, 60)
        with pytest.raises(QueueFull, match="max_queue_tokens"):
            queue.put(SHOT, 1)
        first.cancel()
        await asyncio.sleep(0)
        assert len(queue) == 1
        third = queue.put(SHOT, 1)
        queue.fail_all(EngineLost("gone"))
        assert isinstance(second.exception(), EngineLost)
        assert isinstance(third.exception(), EngineLost)
        assert queue.full is None

    asyncio.run(scenario())


def test_retry_after_is_computed_from_the_measured_rate() -> None:
    async def scenario() -> None:
        queue = ShotQueue(max_shots=10, max_tokens=1000)
        answers = [queue.put(SHOT, 1) for _ in range(10)]
        for _ in range(50):
            queue.measured(shots=4, tokens=4, seconds=8)
        assert queue.retry_after == 20
        queue.servers = 4
        assert queue.retry_after == 5
        assert queue.full is not None
        assert queue.full.retry_after == 5
        assert len(answers) == 10

    asyncio.run(scenario())


def test_the_earliest_deadline_goes_first_and_of_equal_ones_who_came_first() -> None:
    async def scenario() -> None:
        queue = ShotQueue(max_shots=99, max_tokens=1000)
        deadlines = [600.0, 601.0, 5.0, float("inf"), 600.0, 5.0]
        answers = [queue.put(until(deadline), number + 1) for number, deadline in enumerate(deadlines)]
        answers[4].cancel()
        batch = await queue.take(budget=9)  # of 3 and 6 tokens
        assert [pending.tokens for pending in batch] == [3, 6]
        assert [pending.tokens for pending in await queue.take(budget=99)] == [1, 2, 4]
        assert len(queue) == 0

    asyncio.run(scenario())


def test_whatever_comes_and_goes_the_order_holds_and_nothing_is_lost() -> None:
    async def scenario() -> None:
        chance = random.Random(9)
        queue = ShotQueue(max_shots=999, max_tokens=9999)
        waiting = [(queue.put(until(chance.choice([1.0, 2.0, 3.0])), 1), number) for number in range(200)]
        for answer, _ in chance.sample(waiting, 50):
            answer.cancel()
        await asyncio.sleep(0)
        assert len(queue) == 150
        first = await queue.take(budget=40)
        queue.put_back(chance.sample(first, len(first)))
        again = await queue.take(budget=40)
        assert again == first
        rest = await queue.take(budget=999)
        order = [(pending.shot.deadline, pending.number) for pending in again + rest]
        assert len(order) == 150
        assert order == sorted(order)
        assert queue.full is None

    asyncio.run(scenario())


def test_shots_of_a_lost_engine_go_before_those_that_came_later() -> None:
    async def scenario() -> None:
        queue = ShotQueue(max_shots=99, max_tokens=1000)
        for _ in range(3):
            queue.put(until(600.0), 1)
        held = await queue.take(budget=2)
        later = queue.put(until(601.0), 1)
        queue.give_back(held)
        batches = [await queue.take(budget=99) for _ in range(3)]
        assert [[pending.number for pending in batch] for batch in batches] == [[0], [1], [2, 3]]
        assert not later.done()

    asyncio.run(scenario())


def test_a_suspect_goes_alone_and_in_its_old_place() -> None:
    async def scenario() -> None:
        queue = ShotQueue(max_shots=99, max_tokens=1000)
        answers = [queue.put(SHOT, 1) for _ in range(6)]
        await queue.take(budget=1)
        queue.give_back(await queue.take(budget=2))
        queue.put_back(await queue.take(budget=0))
        batches = [await queue.take(budget=9) for _ in range(3)]
        assert [[pending.number for pending in batch] for batch in batches] == [[1], [2], [3, 4, 5]]
        assert [pending.suspect for batch in batches for pending in batch] == [True, True, False, False, False]
        assert not any(answer.done() for answer in answers)

    asyncio.run(scenario())


def test_a_shot_that_kills_two_engines_is_given_up() -> None:
    async def scenario() -> None:
        queue = ShotQueue(max_shots=4, max_tokens=1000)
        answer = queue.put(SHOT, 1)
        queue.give_back(await queue.take(10))
        queue.give_back(await queue.take(10))
        with pytest.raises(EngineLost, match="twice"):
            await answer

    asyncio.run(scenario())
