"""The attention of one more token of each caption."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

KEY_BLOCK = 64
MOST_PARTS = 16
ENOUGH_PROGRAMS = 128


@triton.jit
def _attend_one(
    query, cache, starts, lengths, out, masses, query_stride, scale,
    HEADS: tl.constexpr, KEPT: tl.constexpr, WIDTH: tl.constexpr,
    GROUP_BLOCK: tl.constexpr, KEY_BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    row, kept, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    group: tl.constexpr = HEADS // KEPT
    length = tl.load(lengths + row)
    slot = cache + tl.load(starts + row).to(tl.int64) * 2 * KEPT * WIDTH + kept * WIDTH
    each = tl.cdiv(tl.cdiv(length, KEY_BLOCK), PARTS) * KEY_BLOCK
    end = tl.minimum((part + 1) * each, length)
    member, at, d = tl.arange(0, GROUP_BLOCK), tl.arange(0, KEY_BLOCK), tl.arange(0, WIDTH)
    is_member = member < group
    head = kept * group + member
    asked = tl.load(query + row * query_stride + head[:, None] * WIDTH + d, is_member[:, None], other=0.0)
    highest = tl.full((GROUP_BLOCK,), -1e30, tl.float32)
    mass = tl.zeros((GROUP_BLOCK,), tl.float32)
    total = tl.zeros((GROUP_BLOCK, WIDTH), tl.float32)
    for first in range(part * each, end, KEY_BLOCK):
        seen = first + at < end
        place = slot + (first + at)[:, None] * 2 * KEPT * WIDTH + d
        key = tl.load(place, seen[:, None], other=0.0)
        score = tl.where(seen[None, :], tl.dot(asked, tl.trans(key)) * scale, float("-inf"))
        new = tl.maximum(highest, tl.max(score, 1))
        weight = tl.exp(score - new[:, None])
        old = tl.exp(highest - new)
        value = tl.load(place + KEPT * WIDTH, seen[:, None], other=0.0)
        mass = mass * old + tl.sum(weight, 1)
        total = total * old[:, None] + tl.dot(weight.to(value.dtype), value)
        highest = new
    target = (row * HEADS + head) * PARTS + part
    answer = total / tl.maximum(mass, 1e-30)[:, None]
    tl.store(out + target[:, None] * WIDTH + d, answer.to(out.dtype.element_ty), is_member[:, None])
    if PARTS > 1:
        tl.store(masses + target, highest + tl.log(tl.maximum(mass, 1e-30)), is_member)


@triton.jit
def _join_parts(parts, masses, out, WIDTH: tl.constexpr, PARTS: tl.constexpr):
    head = tl.program_id(0)
    part, d = tl.arange(0, PARTS), tl.arange(0, WIDTH)
    mass = tl.load(masses + head * PARTS + part)
    share = tl.exp(mass - tl.max(mass, 0))
    share /= tl.sum(share, 0)
    answers = tl.load(parts + (head * PARTS + part)[:, None] * WIDTH + d)
    tl.store(out + head * WIDTH + d, tl.sum(answers * share[:, None], 0).to(out.dtype.element_ty))


def parts_of(rows: int, kept: int) -> int:
    """Into how many parts a row's keys are cut, where so many rows have so many key heads each."""
    return int(min(MOST_PARTS, triton.next_power_of_2(max(1, ENOUGH_PROGRAMS // (rows * kept)))))


def attend_one(query: Tensor, cache: Tensor, starts: Tensor, lengths: Tensor) -> Tensor:
    """`attention.attend_one`. Where there are few rows, each is cut into parts so that all of the GPU has work."""
    rows, heads, width = query.shape
    kept = cache.shape[2]
    parts = parts_of(rows, kept)
    out = query.new_empty(rows, heads, width)
    answers = out if parts == 1 else query.new_empty(rows, heads, parts, width, dtype=torch.float32)
    masses = query.new_empty(rows, heads, parts, dtype=torch.float32)
    _attend_one[(rows, kept, parts)](
        query,
        cache,
        starts,
        lengths,
        answers,
        masses,
        query.stride(0),
        width**-0.5,
        HEADS=heads,
        KEPT=kept,
        WIDTH=width,
        GROUP_BLOCK=max(16, triton.next_power_of_2(heads // kept)),
        KEY_BLOCK=KEY_BLOCK,
        PARTS=parts,
    )
    if parts > 1:
        _join_parts[(rows * heads,)](answers, masses, out, width, parts)
    return out
