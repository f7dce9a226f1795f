"""Attention over sequences of unequal length that lie one behind the other, without padding.

On a GPU in half precision it is a Triton kernel over the cache (`kernels`), and one call of the flash
attention that torch brings where none serves; elsewhere the same in plain torch. Flash attention's public name,
torch.nn.attention.varlen, has no `seqused_k` before torch 2.12, so the operator below it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from engines.qwen2vl import fused
from engines.qwen2vl.spans import Spans

if TYPE_CHECKING:
    from torch import Tensor

# Sequences are padded and taken together, up to so many scores: short ones in one call, long ones alone.
MOST_SCORES = 2**21
# What heads the kernels were written for.
KERNEL_WIDTHS = (16, 32, 64, 128)
PICTURE_WIDTHS = (32, 64, 80, 128)


def attend(
    query: Tensor, key: Tensor, value: Tensor, asking: Spans, asked: Spans, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """Each sequence of queries looks at the sequence of keys of the same number.

    Args:
        query: (tokens, heads, width).
        key: (tokens, key heads, width); a key head serves `heads / key heads` neighbouring heads.
        value: as `key`.
        asking: where the queries' sequences lie.
        asked: where the keys' lie.
        causal: the last query sees all keys of its sequence, the one before it all but the last, and so on.

    Returns:
        The answers, (tokens, heads, width), and the logarithm of each softmax's denominator, float32 (heads, tokens).
    """
    if _is_half_on_gpu(query):
        answer, mass, *_ = torch.ops.aten._flash_attention_forward(  # noqa: SLF001 - see the top of this file
            query,
            key,
            value,
            asking.starts,
            asked.starts,
            asking.longest,
            asked.longest,
            0.0,
            causal,
            False,
            seqused_k=asked.lengths,
        )
        return answer, mass
    return _attend_plainly(query, key, value, asking, asked, causal=causal)


def attend_pictures(qkv: Tensor, spans: Spans) -> Tensor:
    """Patches that see all of their own picture.

    Args:
        qkv: (patches, heads of each, width), contiguous: queries, keys and values, as many heads of each.
        spans: where each picture's patches lie.

    Returns:
        The answers, (patches, heads, width).
    """
    heads = qkv.shape[1] // 3
    if _have_kernel(qkv, PICTURE_WIDTHS):
        from engines.qwen2vl.kernels import pictures as kernels
        from engines.qwen2vl.kernels import tiles

        tile = tiles.first_that_fits(kernels.TILES, qkv.device, qkv.shape[-1])
        return kernels.attend_pictures(qkv, spans, tile)
    query, key, value = qkv.split(heads, dim=1)
    return attend(query, key, value, spans, spans, causal=False)[0]


def attend_cached(query: Tensor, cache: Tensor, asking: Spans, cached: Spans, out: Tensor, *, causal: bool) -> Tensor:
    """`attend` over keys and values in the cache.

    Args:
        query: (tokens, heads, width), each token's heads one behind the other.
        cache: (places, 2, key heads, width): keys and values.
        asking: where the queries' sequences lie.
        cached: where the keys' lie.
        out: shaped as `query` and contiguous: the answers go there.
        causal: as for `attend`.

    Returns:
        The logarithm of each softmax's denominator, float32 (heads, tokens).
    """
    if cached.lengths is not None and _have_kernel(query):
        from engines.qwen2vl.kernels import text as kernels
        from engines.qwen2vl.kernels import tiles

        tile = tiles.first_that_fits(kernels.TILES, query.device, query.shape[-1])
        return kernels.attend_cached(query, cache, asking, cached, out, tile=tile, causal=causal)
    answer, mass = attend(query, cache[:, 0], cache[:, 1], asking, cached, causal=causal)
    out.copy_(answer)
    return mass


def join_own(answer: Tensor, mass: Tensor, qkv: Tensor, keys: Tensor, *, twigs: Spans, keyed: Spans) -> None:
    """Let stems and twigs see themselves too, each causally, beside what they have seen in the cache.

    Args:
        answer: (tokens, heads, width), contiguous: what they have got from the cache; what both give takes its place.
        mass: (heads, tokens), contiguous: the masses of that.
        qkv: (tokens, heads of each, width): the same tokens' queries, keys and values.
        keys: which tokens each stem and twig sees.
        twigs: the spans of each stem and twig.
        keyed: the spans of `keys`.
    """
    heads = answer.shape[1]
    if _have_kernel(answer):
        from engines.qwen2vl.kernels import text as kernels

        kernels.join_own(answer, mass, qkv, keys, twigs=twigs, keyed=keyed)
        return
    own_keys, own_values = qkv[:, heads:].index_select(0, keys).chunk(2, dim=1)
    own, own_mass = attend(qkv[:, :heads], own_keys, own_values, twigs, keyed, causal=True)
    answer.copy_(fused.join(answer, mass, own, own_mass))


def attend_one(query: Tensor, cache: Tensor, cached: Spans, starts: Tensor) -> Tensor:
    """One query a sequence over its keys in the cache.

    Flash attention takes five kernels for it, of which three only rearrange, in each layer of each step of a caption.

    Args:
        query: (sequences, heads, width).
        cache: (places, 2, key heads, width): keys and values.
        cached: where each sequence lies there.
        starts: int32 (sequences + 1,): 0, 1, 2 and so on.

    Returns:
        The answers, shaped as `query`.
    """
    if cached.lengths is not None and _have_kernel(query):
        from engines.qwen2vl.kernels import captions as kernels

        return kernels.attend_one(query, cache, cached.starts, cached.lengths)
    return attend(query, cache[:, 0], cache[:, 1], Spans(starts, 1), cached, causal=False)[0]


def _have_kernel(query: Tensor, widths: tuple[int, ...] = KERNEL_WIDTHS) -> bool:
    """Whether Triton's kernels serve, which were written for heads of these widths."""
    return query.shape[-1] in widths and _is_half_on_gpu(query) and fused.has_triton()


def _is_half_on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda and tensor.dtype in fused.HALVES


def _attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, asking: Spans, asked: Spans, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """The same in float32, a few sequences at a time, padded to their longest."""
    starts, lengths = _list(asking)
    key_starts, key_lengths = _list(asked)
    answer = torch.empty_like(query)
    mass = query.new_empty(query.shape[1], query.shape[0], dtype=torch.float32)
    together = max(1, MOST_SCORES // max(1, query.shape[1] * max(lengths) * max(key_lengths)))
    for first in range(0, len(lengths), together):
        chosen = slice(first, first + together)
        places, real = _padded(starts[chosen], lengths[chosen], query.device)
        key_places, key_real = _padded(key_starts[chosen], key_lengths[chosen], query.device)
        seen = key_real[:, None, :]
        if causal:
            ahead = torch.tensor(key_lengths[chosen], device=query.device) - torch.tensor(
                lengths[chosen], device=query.device
            )
            order = torch.arange(places.shape[1], device=query.device)[None, :] + ahead[:, None]
            seen = seen & (torch.arange(key_places.shape[1], device=query.device) <= order[:, :, None])
        answers, masses = _softmax_attention(query[places], key[key_places], value[key_places], seen)
        answer[places[real]] = answers[real].to(query.dtype)
        mass[:, places[real]] = masses.transpose(1, 2)[real].T
    return answer, mass


def _list(spans: Spans) -> tuple[list[int], list[int]]:
    lengths = spans.starts.diff() if spans.lengths is None else spans.lengths
    return spans.starts[:-1].tolist(), lengths.tolist()


def _padded(starts: list[int], lengths: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices of each sequence's tokens, padded with its first one, and which of them are real."""
    steps = torch.arange(max(lengths), device=device)
    real = steps < torch.tensor(lengths, device=device)[:, None]
    return torch.where(real, torch.tensor(starts, device=device)[:, None] + steps, starts[0]), real


def _softmax_attention(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Of (sequences, tokens, heads, width); `seen` is bool (sequences, queries, keys)."""
    groups = query.shape[2] // key.shape[2]
    query, key, value = (tensor.float().transpose(1, 2) for tensor in (query, key, value))
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    hidden = None
    if not seen.all():
        hidden = torch.zeros(seen.shape, device=query.device).masked_fill_(~seen, -torch.inf)[:, None]
    if query.is_cpu:
        attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
        answer, mass = attention(query, key, value, attn_mask=hidden)
        return answer.transpose(1, 2), mass
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    scores = scores if hidden is None else scores + hidden
    mass = scores.logsumexp(dim=-1)
    return (torch.exp(scores - mass[..., None]) @ value).transpose(1, 2), mass
