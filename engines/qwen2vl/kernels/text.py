"""The text's attention over a batch that is read.

Flash attention gives each head a tile of its own and copies keys that are not one behind the other; here the heads that
share keys fill a tile together, and stems and twigs find their few keys where they lie: some 0.4 of its time. See
`benchmarks.attention`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from engines.qwen2vl.kernels.tiles import LOG2_E, Tile

if TYPE_CHECKING:
    from torch import Tensor

    from engines.qwen2vl.spans import Spans

# The fastest on an H100 (benchmarks/LOG.md), and one for chips with less memory of their own.
TILES = (Tile(64, 64, 4, 3), Tile(64, 32, 4, 2))
OWN_TILE = Tile(16, 16, 1, 1)


@triton.jit
def _look(
    asked, highest, mass, total, slot, sees, length, first, end, scale,
    KEPT: tl.constexpr, WIDTH: tl.constexpr, KEY_BLOCK: tl.constexpr, ALL_SEE: tl.constexpr,
):  # fmt: skip
    """Keys from `first` to `end`. Where all rows see all of them, nothing is hidden."""
    at, d = tl.arange(0, KEY_BLOCK), tl.arange(0, WIDTH)
    for start in range(first, end, KEY_BLOCK):
        place = slot + (start + at)[:, None] * 2 * KEPT * WIDTH + d
        if ALL_SEE:
            key, value = tl.load(place), tl.load(place + KEPT * WIDTH)
        else:
            inside = (start + at < length)[:, None]
            key, value = tl.load(place, inside, other=0.0), tl.load(place + KEPT * WIDTH, inside, other=0.0)
        score = tl.dot(asked, tl.trans(key))
        if not ALL_SEE:
            score = tl.where((start + at)[None, :] < sees[:, None], score, float("-inf"))
        new = tl.maximum(highest, tl.max(score, 1) * scale)
        weight = tl.exp2(score * scale - new[:, None])
        old = tl.exp2(highest - new)
        mass = mass * old + tl.sum(weight, 1)
        total = tl.dot(weight.to(value.dtype), value, total * old[:, None])
        highest = new
    return highest, mass, total


@triton.jit(do_not_specialize=["tokens"])
def _attend(
    query, cache, starts, key_starts, key_lengths, out, masses, query_stride, tokens, scale,
    HEADS: tl.constexpr, KEPT: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, KEY_BLOCK: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    group: tl.constexpr = HEADS // KEPT
    tile, kept, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start = tl.load(starts + sequence)
    count = tl.load(starts + sequence + 1) - start
    if tile * ROWS >= count * group:
        return
    length = tl.load(key_lengths + sequence)
    slot = cache + tl.load(key_starts + sequence).to(tl.int64) * 2 * KEPT * WIDTH + kept * WIDTH
    row, d = tile * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    step, head = row // group, kept * group + row % group
    real = step < count
    token = start.to(tl.int64) + step
    asked = tl.load(query + token[:, None] * query_stride + head[:, None] * WIDTH + d, real[:, None], other=0.0)
    if CAUSAL:
        sees = tl.minimum(length - count + step + 1, length)
        all_see = length - count + tile * ROWS // group + 1
        some_see = tl.minimum(length - count + (tile * ROWS + ROWS - 1) // group + 1, length)
    else:
        sees = tl.zeros((ROWS,), tl.int32) + length
        all_see = length
        some_see = length
    whole = all_see // KEY_BLOCK * KEY_BLOCK
    highest = tl.full((ROWS,), -1e30, tl.float32)
    mass = tl.zeros((ROWS,), tl.float32)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    highest, mass, total = _look(
        asked, highest, mass, total, slot, sees, length, 0, whole, scale, KEPT, WIDTH, KEY_BLOCK, True
    )
    highest, mass, total = _look(
        asked, highest, mass, total, slot, sees, length, whole, some_see, scale, KEPT, WIDTH, KEY_BLOCK, False
    )
    answer = (total / mass[:, None]).to(out.dtype.element_ty)
    tl.store(out + (token[:, None] * HEADS + head[:, None]) * WIDTH + d, answer, real[:, None])
    # Powers were of two; the caller's masses are natural logarithms.
    tl.store(masses + head * tokens + token, (highest + tl.log2(mass)) * 0.6931471805599453, real)


@triton.jit(do_not_specialize=["tokens"])
def _join_own(
    answer, cached_mass, qkv, keys, starts, key_starts, stride, tokens, scale,
    HEADS: tl.constexpr, KEPT: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEY_BLOCK: tl.constexpr,
):  # fmt: skip
    group: tl.constexpr = HEADS // KEPT
    twig, kept = tl.program_id(0), tl.program_id(1)
    start, key_start = tl.load(starts + twig).to(tl.int64), tl.load(key_starts + twig)
    count = (tl.load(starts + twig + 1) - start).to(tl.int32)
    key_count = tl.load(key_starts + twig + 1) - key_start
    at, d = tl.arange(0, KEY_BLOCK), tl.arange(0, WIDTH)
    inside = at < key_count
    place = tl.load(keys + key_start + at, inside, other=0)
    source = qkv + place[:, None] * stride + (HEADS + kept) * WIDTH + d
    key = tl.load(source, inside[:, None], other=0.0)
    value = tl.load(source + KEPT * WIDTH, inside[:, None], other=0.0)
    for first in range(0, count * group, ROWS):
        row = first + tl.arange(0, ROWS)
        step, head = row // group, kept * group + row % group
        real = step < count
        token = start + step
        asked = tl.load(qkv + token[:, None] * stride + head[:, None] * WIDTH + d, real[:, None], other=0.0)
        seen = inside[None, :] & (at[None, :] <= key_count - count + step[:, None])
        score = tl.where(seen, tl.dot(asked, tl.trans(key)) * scale, float("-inf"))
        highest = tl.max(score, 1)
        weight = tl.exp(score - highest[:, None])
        mass = tl.sum(weight, 1)
        own = tl.dot(weight.to(value.dtype), value) / mass[:, None]
        share = tl.sigmoid(tl.load(cached_mass + head * tokens + token, real, other=0.0) - highest - tl.log(mass))
        target = answer + (token[:, None] * HEADS + head[:, None]) * WIDTH + d
        of_cache = tl.load(target, real[:, None], other=0.0).to(tl.float32)
        mean = of_cache * share[:, None] + own * (1 - share)[:, None]
        tl.store(target, mean.to(answer.dtype.element_ty), real[:, None])


def attend_cached(
    query: Tensor, cache: Tensor, asking: Spans, cached: Spans, out: Tensor, *, tile: Tile, causal: bool
) -> Tensor:
    """`attention.attend_cached`; `tile` says how the work is cut."""
    tokens, heads, width = query.shape
    kept = cache.shape[2]
    masses = query.new_empty(heads, tokens, dtype=torch.float32)
    tiles = triton.cdiv(asking.longest * (heads // kept), tile.rows)
    _attend[(tiles, kept, len(asking.starts) - 1)](
        query,
        cache,
        asking.starts,
        cached.starts,
        cached.lengths,
        out,
        masses,
        query.stride(0),
        tokens,
        width**-0.5 * LOG2_E,
        HEADS=heads,
        KEPT=kept,
        WIDTH=width,
        ROWS=tile.rows,
        KEY_BLOCK=tile.keys,
        CAUSAL=causal,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return masses


def join_own(
    answer: Tensor, mass: Tensor, qkv: Tensor, keys: Tensor, *, twigs: Spans, keyed: Spans, tile: Tile = OWN_TILE
) -> None:
    """`attention.join_own`. All keys of a twig are taken at once, more of them than `tile.keys` if need be."""
    tokens, heads, width = answer.shape
    kept = (qkv.shape[1] - heads) // 2
    _join_own[(len(twigs.starts) - 1, kept)](
        answer,
        mass,
        qkv,
        keys,
        twigs.starts,
        keyed.starts,
        qkv.stride(0),
        tokens,
        width**-0.5,
        HEADS=heads,
        KEPT=kept,
        WIDTH=width,
        ROWS=tile.rows,
        KEY_BLOCK=max(tile.keys, triton.next_power_of_2(keyed.longest)),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
