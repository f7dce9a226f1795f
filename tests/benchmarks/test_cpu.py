"""The CPU benchmark: its arithmetic, and that the ways it compares do the same work."""

from __future__ import annotations

import pytest
import torch

from benchmarks import cpu, rounds
from engines.base import ShotReading
from qwen_shots.scoring import read_score
from tests.helpers import BUNDLED, TOLERANCE


@pytest.fixture(scope="module")
def stage() -> cpu.Stage:
    return cpu.set_stage(BUNDLED)


def test_every_way_is_timed_once_a_round_and_each_begins_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = [0.0], []

    def way(name: str, cost: float) -> None:
        order.append(name)
        now[0] += cost

    monkeypatch.setattr("time.process_time", lambda: now[0])
    timings = rounds.time_in_turn(
        {"slow": lambda: way("slow", 4.0), "fast": lambda: way("fast", 1.0 + len(order))}, rounds=2
    )
    # A warm-up, then two rounds.
    assert order == ["fast", "slow", "slow", "fast", "fast", "slow"]
    assert timings["slow"] == rounds.Timing((4.0, 4.0), (1.0, 1.0))
    assert timings["fast"] == rounds.Timing((4.0, 5.0), (1.0, 0.8))
    assert rounds.table(timings).splitlines()[-1] == "| fast | 4.500 (4.000 to 5.000) | 0.9 (0.8 to 1.0) |"


def test_generate_writes_a_whole_answer(stage: cpu.Stage) -> None:
    tokens = stage.written.answer_tokens(1)
    assert tokens < stage.written.answer_tokens(3) < 3 * tokens
    assert stage.written.write([stage.shot.pictures[:1]], tokens) == tokens


def test_both_ways_of_scoring_read_the_same_scores(stage: cpu.Stage) -> None:
    (packed,) = stage.scoring.look([stage.shot])
    assert isinstance(packed, ShotReading)
    assert packed.caption == ""
    chances = [torch.softmax(logits[0], dim=-1) for logits in stage.written.ask_each(stage.shot)]
    alone = [
        read_score([float(one[0, i]) for i in digits[:2]], [float(one[2, i]) for i in digits])
        for digits in [stage.written.digits]
        for one in chances
    ]
    flat = [packed.readings[name][number] for number in range(3) for name in packed.readings]
    assert [reading.value for reading in flat] == pytest.approx([reading.value for reading in alone], abs=TOLERANCE)


def test_a_model_that_is_not_there() -> None:
    assert cpu.main(["--model", "./no/such/model"]) == 2
