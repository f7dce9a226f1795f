"""A layer's attention step by step, each by flash attention and by the server's kernels in tiles of many sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from benchmarks.attention import cases
from benchmarks.attention.cases import Case
from engines.qwen2vl import fused
from engines.qwen2vl.attention import attend
from engines.qwen2vl.decoder import see
from engines.qwen2vl.kernels.text import attend_cached, join_own
from engines.qwen2vl.kernels.tiles import Tile
from engines.qwen2vl.spans import Spans

if TYPE_CHECKING:
    from torch import Tensor

FLASH, KERNEL, OWN_KERNEL = "flash attention", "attend_cached", "join_own"
# Beyond 128 rows, or 64 for four warps, registers spill.
TILES = (
    Tile(64, 32, 4, 3),
    Tile(64, 64, 4, 2),
    Tile(64, 64, 4, 3),
    Tile(128, 32, 8, 4),
    Tile(128, 64, 8, 2),
    Tile(128, 64, 8, 3),
    Tile(128, 128, 8, 2),
    Tile(128, 128, 8, 3),
)
OWN_TILES = (Tile(16, 16, 1, 1), Tile(16, 16, 2, 1), Tile(32, 16, 2, 1), Tile(64, 16, 4, 1))

Tensors = tuple["Tensor", ...]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to work a step out.

    Attributes:
        name: ways of one name differ in their tiles.
        run: gives what the reference gives, in tensors of its own.
        tile: None where there is nothing to choose.
    """

    name: str
    run: Callable[[], Tensors]
    tile: Tile | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a layer's attention.

    Attributes:
        name: what it does.
        operations: floating point operations, what is hidden left out.
        reference: the same in float32, by plain torch.
        ways: today's first.
    """

    name: str
    operations: float
    reference: Callable[[], Tensors]
    ways: tuple[Way, ...]


def trunk_step(case: Case) -> Step:
    """Trunks over the instruction and themselves."""
    batch = case.batch
    query = case.qkv[: batch.trunk_tokens, : case.heads.asking]
    return _over_cache("trunks over the cache", case, query, batch.trunks, batch.filled, causal=True)


def question_step(case: Case) -> Step:
    """Stems and twigs over their trunks."""
    query = case.questions[:, : case.heads.asking]
    return _over_cache("questions over the cache", case, query, case.batch.asked, case.batch.seen, causal=False)


def _over_cache(name: str, case: Case, query: Tensor, asking: Spans, asked: Spans, *, causal: bool) -> Step:
    cache = case.cache

    def flash(query: Tensor, cache: Tensor) -> Tensors:
        return attend(query, cache[:, 0], cache[:, 1], asking, asked, causal=causal)

    def kernel(tile: Tile) -> Way:
        def run() -> Tensors:
            out = query.new_empty(query.shape)
            return out, attend_cached(query, cache, asking, asked, out, tile=tile, causal=causal)

        return Way(KERNEL, run, tile)

    return Step(
        name,
        cases.operations(case.heads, asking, asked, causal=causal),
        lambda: flash(query.float(), cache.float()),
        (Way(FLASH, lambda: flash(query, cache)), *map(kernel, TILES)),
    )


def own_step(case: Case) -> Step:
    """Stems and twigs over themselves, joined with what they have got from their trunks."""
    batch, heads, questions = case.batch, case.heads, case.questions
    cache, query = case.cache, questions[:, : heads.asking]
    answer, mass = attend(query, cache[:, 0], cache[:, 1], batch.asked, batch.seen, causal=False)

    def kernel(tile: Tile) -> Way:
        def run() -> Tensors:
            joined = answer.clone()  # counted too, in the kernel's disfavour
            join_own(joined, mass, questions, batch.keys, twigs=batch.twigs, keyed=batch.keyed, tile=tile)
            return (joined,)

        return Way(OWN_KERNEL, run, tile)

    return Step(
        "stems and twigs over themselves, joined",
        cases.operations(heads, batch.twigs, batch.keyed, causal=True),
        lambda: (_own_by_flash(case, questions.float(), answer.float(), mass),),
        (Way(FLASH, lambda: (_own_by_flash(case, questions, answer, mass),)), *map(kernel, OWN_TILES)),
    )


def _own_by_flash(case: Case, questions: Tensor, answer: Tensor, mass: Tensor) -> Tensor:
    batch, heads = case.batch, case.heads
    keys, values = questions[:, heads.asking :].index_select(0, batch.keys).split(heads.kept, dim=1)
    own = attend(questions[:, : heads.asking], keys, values, batch.twigs, batch.keyed, causal=True)
    return fused.join(*own, answer, mass)


def whole_step(case: Case, operations: float) -> Step:
    """All three."""

    def by_flash(cache: Tensor, qkv: Tensor) -> Tensor:
        batch, split, heads = case.batch, case.batch.trunk_tokens, case.heads.asking
        query, keys, values = qkv[:, :heads], cache[:, 0], cache[:, 1]
        trunks, _ = attend(query[:split], keys, values, batch.trunks, batch.filled, causal=True)
        answer, mass = attend(query[split:], keys, values, batch.asked, batch.seen, causal=False)
        return torch.cat([trunks, _own_by_flash(case, qkv[split:], answer, mass)])

    return Step(
        "all of it",
        operations,
        lambda: (by_flash(case.cache.float(), case.qkv.float()),),
        (
            Way(FLASH, lambda: (by_flash(case.cache, case.qkv),)),
            Way("as the server does", lambda: (see(case.cache, case.qkv, case.batch),)),
        ),
    )
