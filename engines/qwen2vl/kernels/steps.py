"""The small steps of `fused` as Triton kernels: one pass over memory each.

torch.compile's kernels for the same lines took 1.5 to 4 times as long and 40 s to build at a start; see
benchmarks/LOG.md. The arithmetic is that of the plain lines, in float32 inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

FLAT_BLOCK = 4096
WIDE_BLOCK = 2048


@triton.jit
def _norm(x, shift, weight, bias, out, width, eps, BLOCK: tl.constexpr, CENTRED: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.arange(0, BLOCK)
    inside = at < width
    wide = tl.load(x + row + at, inside, other=0.0).to(tl.float32)
    if CENTRED:
        wide += tl.load(shift + at, inside, other=0.0)
        wide = tl.where(inside, wide - tl.sum(wide, 0) / width, 0.0)
    wide *= tl.rsqrt(tl.sum(wide * wide, 0) / width + eps)
    scale = tl.load(weight + at, inside, other=0.0)
    if CENTRED:
        wide = wide * scale.to(tl.float32) + tl.load(bias + at, inside, other=0.0).to(tl.float32)
        tl.store(out + row + at, wide.to(out.dtype.element_ty), inside)
    else:
        rounded = wide.to(out.dtype.element_ty).to(tl.float32)
        tl.store(out + row + at, (rounded * scale.to(tl.float32)).to(out.dtype.element_ty), inside)


@triton.jit
def _silu_times(both, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    gate = tl.load(both + row * 2 * width + at, inside).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + at, inside).to(tl.float32)
    gated = (gate * tl.sigmoid(gate)).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * width + at, (gated * up).to(out.dtype.element_ty), inside)


@triton.jit
def _quick_gelu(x, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    value = tl.load(x + at, inside).to(tl.float32)
    tl.store(x + at, (value * tl.sigmoid(1.702 * value)).to(x.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["stored"])
def _turn(
    x, cos, sin, cache, places, stored,
    ALL: tl.constexpr, TURNED: tl.constexpr, KEPT: tl.constexpr, HALF: tl.constexpr,
    HEAD_BLOCK: tl.constexpr, KEPT_BLOCK: tl.constexpr, HALF_BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEAD_BLOCK)[:, None]
    step = tl.arange(0, HALF_BLOCK)[None, :]
    inside = (head < TURNED) & (step < HALF)
    angle = row * HALF + step
    c = tl.load(cos + angle, step < HALF)
    s = tl.load(sin + angle, step < HALF)
    at = x + row * ALL * 2 * HALF + head * 2 * HALF + step
    one = tl.load(at, inside).to(tl.float32)
    other = tl.load(at + HALF, inside).to(tl.float32)
    new_one = (one * c - other * s).to(x.dtype.element_ty)
    new_other = (other * c + one * s).to(x.dtype.element_ty)
    tl.store(at, new_one, inside)
    tl.store(at + HALF, new_other, inside)
    if KEPT:  # noqa: SIM102 - the first is decided when this is compiled
        if row < stored:
            slot = cache + tl.load(places + row) * 2 * KEPT * 2 * HALF
            first = TURNED - KEPT
            is_key = inside & (head >= first)
            key_at = slot + (head - first) * 2 * HALF + step
            tl.store(key_at, new_one, is_key)
            tl.store(key_at + HALF, new_other, is_key)
            value_head = tl.arange(0, KEPT_BLOCK)[:, None]
            is_value = (value_head < KEPT) & (step < HALF)
            value_at = x + row * ALL * 2 * HALF + (TURNED + value_head) * 2 * HALF + step
            target = slot + (KEPT + value_head) * 2 * HALF + step
            tl.store(target, tl.load(value_at, is_value), is_value)
            tl.store(target + HALF, tl.load(value_at + HALF, is_value), is_value)


@triton.jit
def _join(first, first_mass, second, second_mass, tokens, HEADS: tl.constexpr, WIDTH: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    share = tl.sigmoid(tl.load(first_mass + head * tokens + token) - tl.load(second_mass + head * tokens + token))
    at = (token * HEADS + head) * WIDTH + tl.arange(0, WIDTH)
    mean = tl.load(first + at).to(tl.float32) * share + tl.load(second + at).to(tl.float32) * (1 - share)
    tl.store(first + at, mean.to(first.dtype.element_ty))


@triton.jit
def _log_mass(logits, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    most = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        value = tl.load(logits + row * width + start + at, start + at < width, other=float("-inf")).to(tl.float32)
        # NaN must come out as NaN, and a lane that has seen nothing holds minus infinity.
        new = tl.maximum(most, value, propagate_nan=tl.PropagateNan.ALL)
        safe = tl.where(new == float("-inf"), 0.0, new)
        total = total * tl.exp(most - safe) + tl.exp(value - safe)
        most = new
    highest = tl.max(most, 0)
    total = tl.sum(total * tl.exp(most - highest), 0)
    tl.store(out + row, highest + tl.log(total))


def norm(x: Tensor, weight: Tensor, eps: float, shift: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """`fused.layer_norm`, or `fused.rms_norm` where there is neither shift nor bias."""
    x = x.contiguous()
    out = x.new_empty(x.shape)
    width = x.shape[-1]
    block = triton.next_power_of_2(width)
    rows = x.numel() // width
    if shift is None or bias is None:
        _norm[(rows,)](x, x, weight, weight, out, width, eps, block, CENTRED=False)
    else:
        _norm[(rows,)](x, shift, weight, bias, out, width, eps, block, CENTRED=True)
    return out


def silu_times(both: Tensor) -> Tensor:
    """`fused.silu_times`."""
    rows, width = both.shape[0], both.shape[1] // 2
    out = both.new_empty(rows, width)
    _silu_times[(rows, triton.cdiv(width, WIDE_BLOCK))](both, out, width, WIDE_BLOCK)
    return out


def quick_gelu(x: Tensor) -> Tensor:
    """`fused.quick_gelu`, in place."""
    _quick_gelu[(triton.cdiv(x.numel(), FLAT_BLOCK),)](x, x.numel(), FLAT_BLOCK)
    return x


def turn(x: Tensor, angles: tuple[Tensor, Tensor], turned: int, cache: Tensor | None, places: Tensor | None) -> None:
    """`fused.turn`."""
    rows, heads, width = x.shape
    kept = 0 if cache is None else heads - turned
    _turn[(rows,)](
        x,
        *angles,
        x if cache is None else cache,
        x if places is None else places,
        0 if places is None else len(places),
        ALL=heads,
        TURNED=turned,
        KEPT=kept,
        HALF=width // 2,
        HEAD_BLOCK=triton.next_power_of_2(turned),
        KEPT_BLOCK=triton.next_power_of_2(max(1, kept)),
        HALF_BLOCK=triton.next_power_of_2(width // 2),
    )


def join(first: Tensor, first_mass: Tensor, second: Tensor, second_mass: Tensor) -> Tensor:
    """`fused.join`, in the place of the first."""
    tokens, heads, width = first.shape
    _join[(tokens, heads)](first, first_mass, second, second_mass, tokens, heads, width)
    return first


def log_mass(logits: Tensor) -> Tensor:
    """`fused.log_mass`."""
    rows, width = logits.shape
    out = logits.new_empty(rows, dtype=torch.float32)
    _log_mass[(rows,)](logits, out, width, WIDE_BLOCK)
    return out
