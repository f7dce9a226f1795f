"""The pictures' attention: patches that see all of their own picture, pictures of any sizes in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from engines.qwen2vl.kernels.tiles import LOG2_E, Tile

if TYPE_CHECKING:
    from torch import Tensor

    from engines.qwen2vl.spans import Spans

# The fastest on an H100 (benchmarks/LOG.md), and one for chips with less memory of their own.
TILES = (Tile(128, 64, 8, 3), Tile(64, 64, 4, 2))


@triton.jit
def _look_around(
    asked, more_asked, highest, mass, total, more, key, value, length, first, end, scale,
    STRIDE: tl.constexpr, WIDE: tl.constexpr, NARROW: tl.constexpr, KEY_BLOCK: tl.constexpr, ALL_SEE: tl.constexpr,
):  # fmt: skip
    """Keys from `first` to `end`, over heads in two parts. Where all of them are the picture's, none is hidden."""
    at, d, e = tl.arange(0, KEY_BLOCK), tl.arange(0, WIDE), WIDE + tl.arange(0, NARROW)
    for start in range(first, end, KEY_BLOCK):
        row = (start + at)[:, None] * STRIDE
        if ALL_SEE:
            keys, more_keys = tl.load(key + row + d), tl.load(key + row + e)
            values, more_values = tl.load(value + row + d), tl.load(value + row + e)
        else:
            inside = (start + at < length)[:, None]
            keys, more_keys = tl.load(key + row + d, inside, other=0.0), tl.load(key + row + e, inside, other=0.0)
            values = tl.load(value + row + d, inside, other=0.0)
            more_values = tl.load(value + row + e, inside, other=0.0)
        score = tl.dot(more_asked, tl.trans(more_keys), tl.dot(asked, tl.trans(keys)))
        if not ALL_SEE:
            score = tl.where((start + at < length)[None, :], score, float("-inf"))
        new = tl.maximum(highest, tl.max(score, 1) * scale)
        weight = tl.exp2(score * scale - new[:, None])
        old = tl.exp2(highest - new)
        mass = mass * old + tl.sum(weight, 1)
        weight = weight.to(values.dtype)
        total = tl.dot(weight, values, total * old[:, None])
        more = tl.dot(weight, more_values, more * old[:, None])
        highest = new
    return highest, mass, total, more


@triton.jit
def _attend_pictures(
    qkv, starts, out, scale,
    HEADS: tl.constexpr, WIDE: tl.constexpr, NARROW: tl.constexpr, ROWS: tl.constexpr, KEY_BLOCK: tl.constexpr,
):  # fmt: skip
    width: tl.constexpr = WIDE + NARROW
    stride: tl.constexpr = 3 * HEADS * width
    tile, head, picture = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start = tl.load(starts + picture).to(tl.int64)
    length = (tl.load(starts + picture + 1) - start).to(tl.int32)
    if tile * ROWS >= length:
        return
    query = qkv + start * stride + head * width
    key, value = query + HEADS * width, query + 2 * HEADS * width
    row, d, e = tile * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDE), WIDE + tl.arange(0, NARROW)
    real = (row < length)[:, None]
    asked = tl.load(query + row[:, None] * stride + d, real, other=0.0)
    more_asked = tl.load(query + row[:, None] * stride + e, real, other=0.0)
    highest = tl.full((ROWS,), -1e30, tl.float32)
    mass = tl.zeros((ROWS,), tl.float32)
    total, more = tl.zeros((ROWS, WIDE), tl.float32), tl.zeros((ROWS, NARROW), tl.float32)
    whole = length // KEY_BLOCK * KEY_BLOCK
    highest, mass, total, more = _look_around(
        asked, more_asked, highest, mass, total, more, key, value, length, 0, whole, scale,
        stride, WIDE, NARROW, KEY_BLOCK, True,
    )  # fmt: skip
    highest, mass, total, more = _look_around(
        asked, more_asked, highest, mass, total, more, key, value, length, whole, length, scale,
        stride, WIDE, NARROW, KEY_BLOCK, False,
    )  # fmt: skip
    target = out + ((start + row)[:, None] * HEADS + head) * width
    tl.store(target + d, (total / mass[:, None]).to(out.dtype.element_ty), real)
    tl.store(target + e, (more / mass[:, None]).to(out.dtype.element_ty), real)


def attend_pictures(qkv: Tensor, pictures: Spans, tile: Tile) -> Tensor:
    """`attention.attend_pictures`. Heads of 80 numbers are taken as 64 and 16, where others fill them up to 128."""
    patches, heads, width = qkv.shape[0], qkv.shape[1] // 3, qkv.shape[2]
    wide = triton.next_power_of_2(width) // 2
    out = qkv.new_empty(patches, heads, width)
    _attend_pictures[(triton.cdiv(pictures.longest, tile.rows), heads, len(pictures.starts) - 1)](
        qkv,
        pictures.starts,
        out,
        width**-0.5 * LOG2_E,
        HEADS=heads,
        WIDE=wide,
        NARROW=width - wide,
        ROWS=tile.rows,
        KEY_BLOCK=tile.keys,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out
