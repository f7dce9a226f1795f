"""Linear layers with their activation: one kernel multiplies, bends what comes out and writes that.

What a feed-forward layer's first product writes is large, and an activation of its own reads and writes all of it once
more. Hopper's tensor memory accelerator copies the tiles, and every processor of the GPU takes one tile after another.
See `benchmarks.products`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Cut:
    """How a product is cut.

    Attributes:
        rows: of a tile.
        columns: of a tile.
        depth: of what is copied at once.
        group: tile rows that are worked on side by side, so that the weights are found in the cache.
        warps: of 32 threads each.
        stages: copies on their way at once.
    """

    rows: int
    columns: int
    depth: int
    group: int
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, int]:
        """What a kernel is compiled with."""
        tile = {"ROWS": self.rows, "COLUMNS": self.columns, "DEPTH": self.depth, "GROUP": self.group}
        return tile | {"num_warps": self.warps, "num_stages": self.stages}

    def __str__(self) -> str:
        return f"{self.rows} x {self.columns} x {self.depth}, {self.group} rows of tiles together, {self.stages} stages"


# The fastest on an H100 (benchmarks/LOG.md).
QUICK_GELU_CUT = Cut(128, 256, 64, 4, 8, 3)
SILU_CUT = Cut(128, 256, 64, 8, 8, 3)


@triton.jit
def _swish(x, beta: tl.constexpr, APPROXIMATE: tl.constexpr):
    """`x * sigmoid(beta * x)`, as `half + half * tanh(beta * half)`: that is one special function instead of two."""
    half = 0.5 * x
    if APPROXIMATE:
        tanh = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [beta * half], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        tanh = 2 * tl.sigmoid(beta * x) - 1
    return half + half * tanh


@triton.jit
def _place(tile, tile_rows, tile_columns, GROUP: tl.constexpr):
    """Row and column of a tile: down a group of rows first, then to the next column."""
    first = tile // (GROUP * tile_columns) * GROUP
    together = tl.minimum(tile_rows - first, GROUP)
    within = tile % (GROUP * tile_columns)
    return first + within % together, within // together


@triton.jit
def _halves(x, weight, row, column, depth, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr):
    """The left and the right half of a tile, float32 (ROWS, COLUMNS / 2) each."""
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, depth, DEPTH):
        left = x.load([row, start])
        right = tl.reshape(weight.load([0, column, start]), (COLUMNS, DEPTH))
        total = tl.dot(left, right.T, total)
    return tl.split(tl.permute(tl.reshape(total, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))


@triton.jit(do_not_specialize=["rows"])
def _linear_quick_gelu(
    x, weight, bias, out, rows, columns, depth,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr, APPROXIMATE: tl.constexpr,
):  # fmt: skip
    tile_rows, tile_columns = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    for tile in tl.range(tl.program_id(0), tile_rows * tile_columns, tl.num_programs(0), flatten=True):
        tile_row, tile_column = _place(tile, tile_rows, tile_columns, GROUP)
        row, column = tile_row * ROWS, tile_column * COLUMNS
        halves = _halves(x, weight, row, column, depth, ROWS, COLUMNS, DEPTH)
        for side in tl.static_range(2):
            first = column + side * (COLUMNS // 2)
            at = first + tl.arange(0, COLUMNS // 2)
            value = halves[side] + tl.load(bias + at, at < columns, other=0.0).to(tl.float32)[None, :]
            out.store([row, first], _swish(value, 1.702, APPROXIMATE).to(out.dtype))


@triton.jit(do_not_specialize=["rows"])
def _linear_silu_times(
    x, weight, out, rows, columns, depth,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr, APPROXIMATE: tl.constexpr,
):  # fmt: skip
    tile_rows, tile_columns = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS // 2)
    for tile in tl.range(tl.program_id(0), tile_rows * tile_columns, tl.num_programs(0), flatten=True):
        tile_row, tile_column = _place(tile, tile_rows, tile_columns, GROUP)
        row, column = tile_row * ROWS, tile_column * (COLUMNS // 2)
        gate, up = _halves(x, weight, row, column, depth, ROWS, COLUMNS, DEPTH)
        out.store([row, column], (_swish(gate, 1.0, APPROXIMATE) * up).to(out.dtype))


def linear_quick_gelu(
    x: Tensor, weight: Tensor, bias: Tensor, *, cut: Cut = QUICK_GELU_CUT, approximate: bool = True
) -> Tensor:
    """`linear.linear_quick_gelu`.

    Args:
        x: as there.
        weight: as there.
        bias: as there.
        cut: how the work is cut.
        approximate: take the GPU's own tanh, off by 2^-11 of it at most; Triton's interpreter has none. A layer's root
            mean square error is still less than where its product is rounded first (benchmarks/LOG.md).
    """
    return _launch(_linear_quick_gelu, x, weight[None], bias, cut=cut, approximate=approximate)


def linear_silu_times(x: Tensor, gate_and_up: Tensor, *, cut: Cut = SILU_CUT, approximate: bool = True) -> Tensor:
    """`linear.linear_silu_times`. A tile has gates on its left and the ups of the same columns on its right.

    Args:
        x: as there.
        gate_and_up: as there.
        cut: how the work is cut.
        approximate: as for `linear_quick_gelu`.
    """
    return _launch(_linear_silu_times, x, gate_and_up.unflatten(0, (2, -1)), cut=cut, approximate=approximate)


def _launch(kernel: Any, x: Tensor, weights: Tensor, *more: Tensor, cut: Cut, approximate: bool) -> Tensor:
    """Launch one of the kernels.

    Args:
        kernel: which.
        x: (tokens, width).
        weights: (layers, columns, width), contiguous: of as many layers as share a tile, side by side.
        more: what else the kernel reads.
        cut: how the work is cut.
        approximate: as for `linear_quick_gelu`.

    Returns:
        (tokens, columns).
    """
    (rows, depth), (layers, columns, _) = x.shape, weights.shape
    out = x.new_empty(rows, columns)
    tiles = triton.cdiv(rows, cut.rows) * triton.cdiv(columns, cut.columns // layers)
    kernel[(min(tiles, _processors(x)),)](
        TensorDescriptor.from_tensor(x, [cut.rows, cut.depth]),
        TensorDescriptor.from_tensor(weights, [layers, cut.columns // layers, cut.depth]),
        *more,
        TensorDescriptor.from_tensor(out, [cut.rows, cut.columns // 2]),
        rows,
        columns,
        depth,
        APPROXIMATE=approximate,
        **cut.options,
    )
    return out


def _processors(x: Tensor) -> int:
    """Of the GPU; in the interpreter, which has one, few and more than one."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 3
