"""The products of a caption's step, with the small steps around them, for one caption alone.

One more token reads all weights for two operations each, so it is bound by the memory, and by what every kernel costs
that waits for the one before. Here a layer is six kernels instead of a dozen, and what they read goes straight to
where it is multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

    from engines.qwen2vl.fused import Angles
    from engines.qwen2vl.projection import Projection


@dataclass(frozen=True, slots=True)
class Reading:
    """How weights are read.

    Attributes:
        outputs: of a program.
        depth: numbers of a row that are asked for at once.
        warps: of 32 threads each.
    """

    outputs: int
    depth: int
    warps: int

    def __str__(self) -> str:
        return f"{self.outputs} outputs, {self.depth} at once, {self.warps} warps"


# The fastest on an H100 (benchmarks/LOG.md).
READING = Reading(4, 2048, 8)


@triton.jit
def _multiply(
    x, norm, weight, outputs, eps, WIDTH: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr, NORMED: tl.constexpr
):  # fmt: skip
    """Products of `x`, normed if it is to be, with some rows of the weights: float32 (OUTPUTS,)."""
    row = weight + outputs[:, None].to(tl.int64) * WIDTH
    total, square = tl.zeros((OUTPUTS, DEPTH), tl.float32), tl.zeros((DEPTH,), tl.float32)
    for start in tl.static_range(0, WIDTH, DEPTH):
        at = start + tl.arange(0, DEPTH)
        inside = at < WIDTH
        value = tl.load(x + at, inside, other=0.0).to(tl.float32)
        if NORMED:
            square += value * value
            value *= tl.load(norm + at, inside, other=0.0).to(tl.float32)
        total += tl.load(row + at, inside[None, :], other=0.0).to(tl.float32) * value
    answer = tl.sum(total, 1)
    if NORMED:  # the root mean square is a factor of all products
        answer *= tl.rsqrt(tl.sum(square, 0) / WIDTH + eps)
    return answer


@triton.jit
def _in_pairs(first, apart, OUTPUTS: tl.constexpr):
    """Outputs from `first` on, and as many that are so far behind them."""
    at = tl.arange(0, OUTPUTS)
    return first + at % (OUTPUTS // 2) + at // (OUTPUTS // 2) * apart


@triton.jit
def _halves(answer, OUTPUTS: tl.constexpr):
    return tl.split(tl.trans(tl.reshape(answer, (2, OUTPUTS // 2))))


@triton.jit
def _norm_query(
    x, norm, weight, bias, cos, sin, query, cache, places, eps,
    HEADS: tl.constexpr, KEPT: tl.constexpr, HALF: tl.constexpr,
    WIDTH: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    head, first = tl.program_id(0), tl.program_id(1) * (OUTPUTS // 2)
    outputs = _in_pairs(head * 2 * HALF + first, HALF, OUTPUTS)
    answer = _multiply(x, norm, weight, outputs, eps, WIDTH, OUTPUTS, DEPTH, True)
    one, other = _halves(answer + tl.load(bias + outputs).to(tl.float32), OUTPUTS)
    step = first + tl.arange(0, OUTPUTS // 2)
    if head < HEADS + KEPT:  # queries and keys turn
        c, s = tl.load(cos + step), tl.load(sin + step)
        turned = one * c - other * s
        other = other * c + one * s
        one = turned
    if head < HEADS:
        target = query + head * 2 * HALF + step
    else:
        target = cache + (tl.load(places) * 2 * KEPT + head - HEADS) * 2 * HALF + step
    tl.store(target, one.to(query.dtype.element_ty))
    tl.store(target + HALF, other.to(query.dtype.element_ty))


@triton.jit
def _norm_silu_times(
    x, norm, weight, out, eps, INNER: tl.constexpr, WIDTH: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr
):
    first = tl.program_id(0) * (OUTPUTS // 2)
    outputs = _in_pairs(first, INNER, OUTPUTS)
    gate, up = _halves(_multiply(x, norm, weight, outputs, eps, WIDTH, OUTPUTS, DEPTH, True), OUTPUTS)
    tl.store(out + first + tl.arange(0, OUTPUTS // 2), (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty))


@triton.jit
def _add_linear(x, change, weight, WIDTH: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr):
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    answer = _multiply(change, change, weight, outputs, 0.0, WIDTH, OUTPUTS, DEPTH, False)
    tl.store(x + outputs, (tl.load(x + outputs).to(tl.float32) + answer).to(x.dtype.element_ty))


def norm_query(
    x: Tensor, project: Projection, angles: Angles, cache: Tensor, places: Tensor, *, reading: Reading = READING
) -> Tensor:
    """`linear.norm_query`; `reading` says how the weights are read."""
    kept, head_width = cache.shape[2:]
    heads = project.weight.shape[0] // head_width - 2 * kept
    query = x.new_empty(1, heads, head_width)
    _norm_query[(heads + 2 * kept, head_width // reading.outputs)](
        x,
        project.norm,
        project.weight,
        project.bias,
        *angles,
        query,
        cache,
        places,
        project.eps,
        HEADS=heads,
        KEPT=kept,
        HALF=head_width // 2,
        **_options(x, reading),
    )
    return query


def norm_silu_times(x: Tensor, gate_and_up: Projection, *, reading: Reading = READING) -> Tensor:
    """`linear.norm_silu_times`; `reading` as for `norm_query`."""
    norm, weight = gate_and_up.norm, gate_and_up.weight
    inner = weight.shape[0] // 2
    out = x.new_empty(1, inner)
    _norm_silu_times[(2 * inner // reading.outputs,)](
        x, norm, weight, out, gate_and_up.eps, INNER=inner, **_options(x, reading)
    )
    return out


def add_linear(x: Tensor, change: Tensor, weight: Tensor, *, reading: Reading = READING) -> None:
    """`linear.add_linear`; `reading` as for `norm_query`."""
    _add_linear[(x.shape[1] // reading.outputs,)](x, change, weight, **_options(change, reading))


def fits(*widths: int) -> bool:
    """Whether layers of such widths are whole numbers of what a program takes."""
    return all(width % READING.outputs == 0 for width in widths)


def _options(x: Tensor, reading: Reading) -> dict[str, int]:
    """What a kernel is compiled with."""
    return {"WIDTH": x.shape[1], "OUTPUTS": reading.outputs, "DEPTH": reading.depth, "num_warps": reading.warps}
