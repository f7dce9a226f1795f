"""The GPU's kernels say what the plain lines of `fused` and `attention` say. `test_kernels` runs this, interpreted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from engines.qwen2vl import attention, fused
from engines.qwen2vl.kernels import captions, steps
from engines.qwen2vl.spans import Spans

EPS = 1e-6


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def assert_same(there: object, here: object) -> None:
    torch.testing.assert_close(there, here, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [48, 300])
def test_norms(width: int) -> None:
    x, shift, weight, bias = numbers(7, width), 3 * numbers(2, width)[1], numbers(width), numbers(1, width)[0]
    assert_same(steps.norm(x, weight, EPS), fused.rms_norm(x, weight, EPS))
    layer = steps.norm(x, weight, fused.VISION_EPS, shift, bias)
    assert_same(layer, fused.layer_norm(x, shift, weight, bias))


@pytest.mark.parametrize(
    ("name", "shape"), [("silu_times", (5, 2 * 300)), ("quick_gelu", (3, 4099)), ("log_mass", (4, 5001))]
)
def test_small_steps(name: str, shape: tuple[int, int]) -> None:
    plain: Callable[[torch.Tensor], torch.Tensor] = getattr(fused, name)
    x = 5 * numbers(*shape)
    assert_same(getattr(steps, name)(x.clone()), plain(x))


def test_the_mass_of_not_a_number_is_none() -> None:
    logits = numbers(2, 5000)
    logits[1, 4321] = torch.nan
    assert steps.log_mass(logits).isnan().tolist() == [False, True]


@pytest.mark.parametrize(("heads", "kept", "width"), [(12, 2, 32), (6, 2, 24), (4, 4, 16)])
def test_turning_and_keeping(heads: int, kept: int, width: int) -> None:
    qkv, cache = numbers(9, heads + 2 * kept, width), torch.zeros(30, 2, kept, width)
    angles, places = (numbers(9, width // 2), numbers(width // 2, 9).T.contiguous()), torch.tensor([3, 29, 0, 7, 11])
    there, there_cache = qkv.clone(), cache.clone()
    steps.turn(there, angles, heads + kept, there_cache, places)
    fused.turn(qkv, angles, heads + kept, cache, places)
    assert_same(there, qkv)
    assert_same(there_cache, cache)


def test_turning_alone() -> None:
    qkv, angles = numbers(5, 12, 20), (numbers(5, 10), numbers(10, 5).T.contiguous())
    there = qkv.clone()
    steps.turn(there, angles, 8, None, None)
    fused.turn(qkv, angles, 8)
    assert_same(there, qkv)


def test_joining() -> None:
    answers = [numbers(7, 12, 16), numbers(12, 7, 16).transpose(0, 1).contiguous()]
    masses = [4 * numbers(12, 7), numbers(7, 12).T.contiguous()]
    first, second = (answer.clone() for answer in answers)
    assert_same(
        steps.join(first, masses[0], second, masses[1]), fused.join(answers[0], masses[0], answers[1], masses[1])
    )


@pytest.mark.parametrize("rows", [1, 3, 70], ids=["in many parts", "in some parts", "whole"])
def test_one_query_over_the_cache(rows: int) -> None:
    heads, kept, width, room = 12, 2, 16, 150
    query, cache = numbers(rows, heads, width), numbers(rows * room, 2, kept, width)
    starts = torch.arange(rows, dtype=torch.int32) * room
    lengths = torch.tensor([1 + 37 * row % (room - 1) for row in range(rows)], dtype=torch.int32)
    cached = Spans(torch.cat([starts, starts[-1:] + room]), room, lengths)
    asking = Spans(torch.arange(rows + 1, dtype=torch.int32), 1)
    plain, _ = attention.attend(query, cache[:, 0], cache[:, 1], asking, cached, causal=False)
    assert_same(captions.attend_one(query, cache, starts, lengths), plain)
