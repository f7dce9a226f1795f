"""A layer's kernels for one token say what the plain lines say. `test_kernels` runs this in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from engines.qwen2vl import fused, linear
from engines.qwen2vl.kernels import alone
from engines.qwen2vl.kernels.alone import Reading
from engines.qwen2vl.projection import Projection

# Some rows of the weights at once, and less than all of a row.
READINGS = [Reading(4, 2048, 8), Reading(8, 32, 1)]


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def assert_same(there: object, here: object) -> None:
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(("heads", "kept", "width"), [(6, 2, 16), (2, 2, 32)])
def test_queries_and_what_is_kept(heads: int, kept: int, width: int, reading: Reading) -> None:
    hidden, outputs = heads * width, (heads + 2 * kept) * width
    project = Projection(numbers(hidden), 1e-6, numbers(outputs, hidden), numbers(outputs))
    x, place = numbers(1, hidden), torch.tensor([17])
    angles = numbers(1, width // 2), numbers(width // 2, 1).T.contiguous()
    cache = numbers(20, 2, kept, width)
    plain_cache = cache.clone()
    query = alone.norm_query(x, project, angles, cache, place, reading=reading)
    assert_same(query, linear.norm_query(x, project, angles, plain_cache, place))
    assert_same(cache, plain_cache)


@pytest.mark.parametrize("reading", READINGS)
def test_gates(reading: Reading) -> None:
    project = Projection(numbers(72), 1e-6, numbers(2 * 40, 72))
    assert_same(
        alone.norm_silu_times(numbers(1, 72), project, reading=reading),
        linear.norm_silu_times(numbers(1, 72), project),
    )


@pytest.mark.parametrize("reading", READINGS)
def test_adding(reading: Reading) -> None:
    there, change, weight = numbers(1, 48), numbers(1, 100), numbers(48, 100)
    here = there.clone()
    alone.add_linear(there, change, weight, reading=reading)
    linear.add_linear(here, change, weight)
    assert_same(there, here)


def test_one_token_takes_them_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the way that a GPU goes, of one token and of two."""
    monkeypatch.setattr(fused, "fuses", lambda _: True)
    project = Projection(numbers(32).half(), 1e-6, numbers(4 * 16, 32).half(), numbers(4 * 16).half())
    gates, out = Projection(numbers(32).half(), 1e-6, numbers(2 * 24, 32).half()), numbers(32, 24).half()

    def answers(x: torch.Tensor) -> list[torch.Tensor]:
        places, angles = torch.arange(len(x)), numbers(2, 2, 8)[:, : len(x)].contiguous()
        cache = torch.zeros(4, 2, 1, 16, dtype=torch.float16)
        query = linear.norm_query(x, project, (angles[0], angles[1]), cache, places)
        linear.add_linear(x, linear.norm_silu_times(x, gates), out)
        return [each[0].float() for each in (query, cache, x)]

    both = numbers(2, 32).half()
    assert linear._is_alone(both[:1], 32, 24)
    assert not linear._is_alone(both, 32, 24)
    assert not linear._is_alone(both[:1].float(), 32, 24)
    assert not linear._is_alone(both[:1], 32, 26)  # not a whole number of programs
    torch.testing.assert_close(answers(both[:1].clone()), answers(both), rtol=0.01, atol=0.05)
