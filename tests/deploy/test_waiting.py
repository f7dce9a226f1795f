"""What an ingress counts, without Ray."""

from __future__ import annotations

import contextlib

import pytest

from deploy.waiting import Waiting
from qwen_shots.errors import QueueFull


def test_as_many_shots_as_allowed_are_in_hand() -> None:
    waiting = Waiting(max_shots=2, max_tokens=1000)
    with contextlib.ExitStack() as hand:
        hand.enter_context(waiting.one(10))
        with waiting.one(10):
            assert waiting.shots == 2
            with pytest.raises(QueueFull, match="max_queue_shots"):
                hand.enter_context(waiting.one(10))
        assert waiting.full is None
    assert waiting.shots == 0


def test_tokens_count_too_and_a_shot_that_fails_leaves_nothing() -> None:
    waiting = Waiting(max_shots=9, max_tokens=100)
    with pytest.raises(KeyError), waiting.one(100):
        assert waiting.full is not None
        assert "max_queue_tokens" in waiting.full.detail
        raise KeyError
    assert (waiting.shots, waiting.full) == (0, None)


def test_retry_after_follows_the_rate_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    waiting = Waiting(max_shots=1000, max_tokens=10**6)
    with contextlib.ExitStack() as hand:
        for _ in range(10):
            hand.enter_context(waiting.one(1))
        for _ in range(60):
            now += 2.0  # an answer every 2 s
            with waiting.one(1):
                pass
        assert waiting.retry_after == 20
    now += 3600.0  # an idle hour says nothing about the rate
    with waiting.one(1):
        now += 2.0
    with waiting.one(1):
        assert waiting.retry_after <= 3
