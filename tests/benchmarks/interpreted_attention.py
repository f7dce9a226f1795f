"""The candidates for attention say what a plain softmax says. `test_attention` runs this in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest
import torch

from benchmarks.attention import figures, ways
from benchmarks.attention.cases import Case, Heads, fill
from benchmarks.attention.kernels import Tile
from benchmarks.attention.ways import Step, Way
from engines.qwen2vl.layout import BatchLayout, lay_out_batch, lay_out_shot

SHARED = 5
# Stems of one token and none, twigs of three tokens and more.
QUESTIONS: tuple[Sequence[Sequence[Sequence[int]]], ...] = (
    [[(1, 2, 3, 4), (1, 5, 6, 7)]],
    [[(1, 2, 3), (4, 5, 6, 7, 8)], [(1, 2, 3, 4, 5, 6), (1, 2, 3, 7, 8, 9, 9, 9, 9, 9, 9, 9)]],
    [[(1, 2, 3, 4)] * 3],
)
TRUNKS = (37, 3, 70)
OWN_TILE = Tile(16, 16, 1, 1)


def lay_out() -> BatchLayout:
    shots = [
        lay_out_shot(
            range(SHARED + trunk),
            np.broadcast_to(np.arange(SHARED + trunk), (3, SHARED + trunk)),
            (1, 2),
            questions,
            shared=SHARED,
            image_token=7,
        )
        for trunk, questions in zip(TRUNKS, QUESTIONS, strict=True)
    ]
    return lay_out_batch(shots, shared=SHARED, room=4)


def make_case(layout: BatchLayout, heads: Heads) -> Case:
    arrays = {field.name: getattr(layout, field.name) for field in fields(layout)}
    numbers = {name: torch.from_numpy(array) for name, array in arrays.items() if isinstance(array, np.ndarray)}
    return fill(layout, numbers, heads, torch.empty(0))


def softmax_of_each(case: Case, layout: BatchLayout) -> torch.Tensor:
    """Token by token: what it sees, from the layout alone."""
    heads = case.heads
    own = case.questions[:, heads.asking :].unflatten(1, (2, heads.kept))
    seen = [
        case.cache[start : start + SHARED + step + 1]
        for start, filled in zip(layout.places[:-1], layout.filled, strict=True)
        for step in range(filled - SHARED)
    ]
    shot_of = np.searchsorted(layout.asked_starts, np.cumsum(layout.lengths), side="left") - 1
    keys_of = np.split(layout.keys, np.cumsum(layout.key_lengths)[:-1])
    for shot, keys, count in zip(shot_of, keys_of, layout.lengths, strict=True):
        trunk = case.cache[layout.places[shot] :][: layout.seen[shot]]
        seen += [torch.cat([trunk, own[keys[: len(keys) - count + step + 1]]]) for step in range(count)]
    answers = []
    for token, sees in zip(case.qkv, seen, strict=True):
        query = token[: heads.asking].unflatten(0, (heads.kept, -1))
        weights = torch.einsum("kgw,nkw->kgn", query, sees[:, 0]).mul(heads.width**-0.5).softmax(dim=-1)
        answers.append(torch.einsum("kgn,nkw->kgw", weights, sees[:, 1]).flatten(0, 1))
    return torch.stack(answers)


@pytest.mark.parametrize(
    ("heads", "tile"),
    [(Heads(12, 2, 16), Tile(128, 64, 8, 3)), (Heads(7, 1, 32), Tile(64, 32, 4, 2))],
    ids=["six heads for a key head", "seven"],
)
def test_all_of_it(heads: Heads, tile: Tile) -> None:
    layout = lay_out()
    assert layout.lengths.min() == 1
    case = make_case(layout, heads)
    plain = softmax_of_each(case, layout)
    for way in ways.whole_step(case, tile, tile, OWN_TILE, 1.0).ways:
        torch.testing.assert_close(way.run()[0], plain, rtol=1e-4, atol=1e-5)


def test_each_step_with_its_masses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "TILES", (Tile(64, 64, 4, 2),))
    case = make_case(lay_out(), Heads(12, 2, 16))
    for step in (ways.trunk_step(case), ways.question_step(case), ways.own_step(case)):
        results = figures.measure(step, lambda _: 1.0)
        assert max(result.difference for result in results) < 1e-4, step.name
        assert {result.way.name for result in results if result.error} <= {"instruction apart, by cuDNN"}
        assert all(result.right or result.error for result in results)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
def test_what_is_not_a_number_is_not_hidden() -> None:
    layout = lay_out()
    case = make_case(layout, Heads(12, 2, 16))
    tokens = [0, 50, len(case.qkv) - 1]
    case.qkv[tokens, 3] = torch.nan
    tile = Tile(128, 32, 8, 2)
    nan = torch.zeros(len(case.qkv), 12, dtype=torch.bool)
    nan[tokens, 3] = True
    for way in ways.whole_step(case, tile, tile, OWN_TILE, 1.0).ways[1:2]:
        assert torch.equal(way.run()[0].isnan().any(dim=-1), nan)
    key = layout.places[1] + 1  # the second shot's instruction: all of its questions see it
    case.cache[key, 0] = torch.nan
    answer = ways.whole_step(case, tile, tile, OWN_TILE, 1.0).ways[1].run()[0][layout.trunk_tokens :]
    assert answer[layout.asked_starts[1] : layout.asked_starts[2]].isnan().all()


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
