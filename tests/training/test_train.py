"""A training that is stopped and goes on ends where one without a stop does."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2VLForConditionalGeneration

from training import train as training
from training.batches import Bucket
from training.train import Plan, Trainer

SMALL = Bucket(3, 4, 5, 1.0)
PLAN = Plan(steps=2, batch=2, warm_up=1)


def steps(trainer: Trainer, count: int) -> None:
    for _ in range(count):
        shots, _ = trainer.source.render(trainer.step, PLAN.batch, SMALL)
        trainer.train_step(SMALL, shots)


def test_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = Trainer(PLAN, "cpu")
    steps(whole, 1)
    state = tmp_path / "not/yet/there/state.pt"
    whole.store(state)
    assert list(state.parent.iterdir()) == [state]
    before = {name: weights.clone() for name, weights in whole.model.state_dict().items()}
    steps(whole, 1)
    resumed = Trainer(PLAN, "cpu")
    resumed.restore(state)
    assert resumed.step == 1
    steps(resumed, 1)
    for name, weights in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], weights)
    changed = [name for name, weights in whole.model.state_dict().items() if not torch.equal(weights, before[name])]
    assert len(changed) == len(before)


def test_the_rate_rises_and_falls() -> None:
    plan = Plan(steps=100, warm_up=10)
    rates = [plan.rate_at(step) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[10] == 1
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01


def test_what_it_saves_is_a_checkpoint(tmp_path: Path) -> None:
    trainer = Trainer(PLAN, "cpu")
    trainer.save(tmp_path)
    model = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    for name, weights in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weights.bfloat16())
    assert len(trainer.tokenizer) == training.VOCABULARY
