"""A layer's attention step by step, each as the server works it out today and otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from benchmarks.attention import cases
from benchmarks.attention.cases import Case
from benchmarks.attention.kernels import Tile, attend_cached, join_own
from engines.qwen2vl import fused
from engines.qwen2vl.attention import Spans, attend
from engines.qwen2vl.decoder import see

if TYPE_CHECKING:
    from torch import Tensor

KERNEL, OWN_KERNEL = "attend_cached", "join_own"
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
    cache, shared = case.cache, case.cache[: case.shared]
    longest, lengths = asked.longest - case.shared, cases.lengths_of(asked) - case.shared
    rest = Spans(asked.starts + case.shared, longest, lengths)

    def flash(query: Tensor, cache: Tensor, asked: Spans) -> Tensors:
        return attend(query, cache[:, 0], cache[:, 1], asking, asked, causal=causal)

    def apart(whole: Callable[[Tensor, Tensor], Tensors]) -> Tensors:
        return _join(whole(query, shared), flash(query, cache, rest))

    def kernel(tile: Tile) -> Way:
        return Way(KERNEL, lambda: attend_cached(query, cache, asking, asked, tile, causal=causal), tile)

    return Step(
        name,
        cases.operations(case.heads, asking, asked, causal=causal),
        lambda: flash(query.float(), cache.float(), asked),
        (
            Way("flash attention", lambda: flash(query, cache, asked)),
            *map(kernel, TILES),
            Way("instruction apart", lambda: apart(_all_over)),
            Way("instruction apart, by cuDNN", lambda: apart(_all_over_by_cudnn)),
        ),
    )


def _all_over(query: Tensor, shared: Tensor) -> Tensors:
    """All queries over the same keys."""
    asking, asked = (Spans(_starts(tensor), len(tensor)) for tensor in (query, shared))
    return attend(query, shared[:, 0], shared[:, 1], asking, asked, causal=False)


def _starts(only: Tensor) -> Tensor:
    return torch.arange(2, dtype=torch.int32, device=only.device) * len(only)


def _all_over_by_cudnn(query: Tensor, shared: Tensor) -> Tensors:
    heads, groups = query.shape[1], query.shape[1] // shared.shape[2]
    key, value = shared.repeat_interleave(groups, dim=2).unbind(1)
    split = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    answer, mass, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(*split, None, True)  # noqa: SLF001
    return answer[0].transpose(0, 1).contiguous(), mass.reshape(heads, -1).contiguous()


def _join(one: Tensors, other: Tensors) -> Tensors:
    masses = torch.logaddexp(one[1], other[1])
    return fused.join(*one, *other), masses


def own_step(case: Case) -> Step:
    """Stems and twigs over themselves, joined with what they have got from their trunks."""
    batch, heads, questions = case.batch, case.heads, case.questions
    cache, query = case.cache, questions[:, : heads.asking]
    answer, mass = attend(query, cache[:, 0], cache[:, 1], batch.asked, batch.seen, causal=False)

    def plainly(questions: Tensor, answer: Tensor) -> Tensors:
        own = questions[:, heads.asking :].index_select(0, batch.keys)
        keys, values = own.split(heads.kept, dim=1)
        of_own = attend(questions[:, : heads.asking], keys, values, batch.twigs, batch.keyed, causal=True)
        return (fused.join(*of_own, answer, mass),)

    def kernel(tile: Tile) -> Way:
        def run() -> Tensors:
            out = torch.empty_like(answer)
            return (join_own(answer, mass, questions, batch.keys, batch.twigs, batch.keyed, tile, out),)

        return Way(OWN_KERNEL, run, tile)

    return Step(
        "stems and twigs over themselves, joined",
        cases.operations(heads, batch.twigs, batch.keyed, causal=True),
        lambda: plainly(questions.float(), answer.float()),
        (Way("flash attention and join", lambda: plainly(questions, answer)), *map(kernel, OWN_TILES)),
    )


def whole_step(case: Case, trunk: Tile, question: Tile, own: Tile, operations: float) -> Step:
    """All three, by today's way and by the kernels; those write side by side, so that nothing is put together."""
    batch, cache, qkv = case.batch, case.cache, case.qkv
    split, heads = batch.trunk_tokens, case.heads.asking

    def ask(out: Tensor) -> Tensor:
        query = case.questions[:, :heads]
        answer, mass = attend_cached(query, cache, batch.asked, batch.seen, question, causal=False, out=out)
        return join_own(answer, mass, case.questions, batch.keys, batch.twigs, batch.keyed, own, answer)

    def kernels() -> Tensors:
        out = qkv.new_empty(len(qkv), heads, case.heads.width)
        attend_cached(qkv[:split, :heads], cache, batch.trunks, batch.filled, trunk, causal=True, out=out[:split])
        ask(out[split:])
        return (out,)

    def for_questions() -> Tensors:
        trunks, _ = attend(qkv[:split, :heads], cache[:, 0], cache[:, 1], batch.trunks, batch.filled, causal=True)
        return (torch.cat([trunks, ask(trunks.new_empty(len(qkv) - split, heads, case.heads.width))]),)

    return Step(
        "all of it",
        operations,
        lambda: (see(cache.float(), qkv.float(), batch),),
        (
            Way("as the server does", lambda: (see(cache, qkv, batch),)),
            Way("both kernels", kernels),
            Way("both kernels, trunks by flash attention", for_questions),
        ),
    )
