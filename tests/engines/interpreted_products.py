"""Products with their activation in one kernel say what the plain lines say. `test_kernels` runs this, interpreted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from engines.qwen2vl import fused, linear
from engines.qwen2vl.kernels import products
from engines.qwen2vl.kernels.products import Cut

SMALL = Cut(rows=32, columns=64, depth=32, group=2, warps=4, stages=2)

# Rows, columns and depth: whole tiles; parts of tiles at every edge; less than a tile.
SIZES = [(64, 128, 64), (150, 200, 72), (5, 16, 16)]


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(("rows", "columns", "depth"), SIZES)
def test_a_layer_and_its_quick_gelu(rows: int, columns: int, depth: int) -> None:
    x, weight, bias = numbers(rows, depth), numbers(columns, depth), numbers(columns)
    plain = linear.linear_quick_gelu(x, weight, bias)
    there = products.linear_quick_gelu(x, weight, bias, cut=SMALL, approximate=False)
    torch.testing.assert_close(there, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "columns", "depth"), SIZES)
def test_two_layers_one_gated_by_the_other(rows: int, columns: int, depth: int) -> None:
    x, weight = numbers(rows, depth), numbers(2 * columns, depth)
    plain = linear.linear_silu_times(x, weight)
    there = products.linear_silu_times(x, weight, cut=SMALL, approximate=False)
    torch.testing.assert_close(there, plain, rtol=1e-4, atol=1e-4)


def test_what_is_not_a_number_stays_in_its_row() -> None:
    x, weight, bias = numbers(70, 48), numbers(2 * 40, 48), numbers(2 * 40)
    x[33, 7] = torch.nan
    for answer in (
        products.linear_silu_times(x, weight, cut=SMALL, approximate=False),
        products.linear_quick_gelu(x, weight, bias, cut=SMALL, approximate=False),
    ):
        assert answer[33].isnan().all()
        assert answer.isnan().any(dim=1).sum() == 1


def test_a_hopper_takes_the_kernels_for_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[str] = []

    def watched(name: str) -> Callable[..., torch.Tensor]:
        kernel: Callable[..., torch.Tensor] = getattr(products, name)

        def launch(*given: torch.Tensor) -> torch.Tensor:
            launched.append(name)
            return kernel(*given, cut=SMALL, approximate=False)

        return launch

    for name in ("linear_quick_gelu", "linear_silu_times"):
        monkeypatch.setattr(products, name, watched(name))
    monkeypatch.setattr(fused, "fuses", lambda _: True)
    monkeypatch.setattr(linear, "has_products", lambda _: True)
    monkeypatch.setattr(linear, "LEAST_PATCHES", 40)
    monkeypatch.setattr(linear, "LEAST_TOKENS", 40)
    weight, bias = numbers(64, 48).half(), numbers(64).half()
    for rows in (39, 40):
        x = numbers(rows, 48).half()
        plain = F.linear(x.float(), weight.float(), bias.float())
        bent = linear.linear_quick_gelu(x, weight, bias)
        torch.testing.assert_close(bent.float(), plain * torch.sigmoid(1.702 * plain), rtol=0.01, atol=0.01)
        gate, up = F.linear(x.float(), weight.float()).chunk(2, dim=1)
        gated = linear.linear_silu_times(x, weight)
        torch.testing.assert_close(gated.float(), F.silu(gate) * up, rtol=0.01, atol=0.02)
    assert launched == ["linear_quick_gelu", "linear_silu_times"]
    # Rows of the answer that would begin where tiles can't be copied to.
    linear.linear_silu_times(numbers(50, 48).half(), numbers(2 * 20, 48).half())
    assert launched == ["linear_quick_gelu", "linear_silu_times"]
