"""The benchmark of attention in Triton's interpreter. `test_attention` runs this."""

from __future__ import annotations

import pytest
import torch

from benchmarks import shapes
from benchmarks.attention import figures, ways
from benchmarks.attention.__main__ import runner_of
from benchmarks.attention.cases import Heads, make_case
from benchmarks.attention.ways import Step, Way
from engines.qwen2vl.kernels.tiles import Tile


def test_every_way_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "TILES", (Tile(64, 64, 4, 2),))
    loaded = shapes.random_model("tiny", "cpu", torch.float32)
    case = make_case(runner_of(loaded, 6), 500, (1, 2), Heads(12, 2, 16), torch.empty(0))
    for step in (ways.trunk_step(case), ways.question_step(case), ways.own_step(case), ways.whole_step(case, 1.0)):
        results = figures.measure(step, lambda _: 1.0)
        assert max(result.difference for result in results) < 1e-4, step.name
        assert all(result.right and not result.error for result in results)


def refuse() -> tuple[torch.Tensor]:
    raise RuntimeError("out of resource: shared memory\nand more")


def test_wrong_and_failed_ways_are_told() -> None:
    right, tiles = torch.ones(3), [Tile(16 * n, 16, 1, 1) for n in range(1, 6)]
    step = Step(
        "a step",
        2e9,
        lambda: (right,),
        (
            Way("today", lambda: (right + 0.001,)),
            Way("new", lambda: (right + 1,), tiles[0]),
            Way("new", lambda: (right * torch.nan,), tiles[1]),
            Way("new", refuse, tiles[2]),
            Way("new", lambda: (right,), tiles[3]),
            Way("other", refuse),
            Way("off", lambda: (right - 1,)),
        ),
    )
    clock = iter([4.0, 1.0, 1.0, 2.0, 3.0])
    results = figures.measure(step, lambda _: next(clock))
    assert figures.table([step], {"a step": results}).splitlines()[2:] == [
        "| a step | today | 4.000 | 1.00 | 0 | 0.0010 |",
        "| a step | new, 64 x 16, 1 warps, 1 stages | 2.000 | 0.50 | 1 | 0.0000 |",
        "| a step | other | failed | | |  |",
        "| a step | off | 3.000 | 0.75 | 1 | 1.0000 WRONG |",
    ]
    told = figures.swept("a step", results)
    assert "16 x 16, 1 warps, 1 stages: 1.000 WRONG; 32 x 16, 1 warps, 1 stages: 1.000 WRONG; 64 x 16" in told
    assert "failed: a step, new 48 x 16, 1 warps, 1 stages: RuntimeError: out of resource: shared memory" in told
