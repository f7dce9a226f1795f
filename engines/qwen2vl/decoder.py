"""Qwen2's text side over a ragged batch: the prompt with all its questions in one pass, then one token a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from engines.qwen2vl import fused, linear
from engines.qwen2vl.attention import attend_cached, attend_one, join_own
from engines.qwen2vl.fused import Angles
from engines.qwen2vl.projection import Projection
from engines.qwen2vl.spans import Spans

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer, those with the same input as one matrix."""

    qkv: Projection
    out: Tensor
    gate_and_up: Projection
    down: Tensor


def join_weights(layer: Any, eps: float) -> Layer:
    """The weights of a transformers layer. Its own then are views of the joined ones, so that memory is not doubled.

    Args:
        layer: of transformers.
        eps: of its norms.
    """
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    first, second = (norm.weight.detach() for norm in (layer.input_layernorm, layer.post_attention_layernorm))
    return Layer(
        qkv=Projection(first, eps, _join(projections, "weight"), _join(projections, "bias")),
        out=attention.o_proj.weight.detach(),
        gate_and_up=Projection(second, eps, _join((mlp.gate_proj, mlp.up_proj), "weight")),
        down=mlp.down_proj.weight.detach(),
    )


def _join(modules: tuple[Any, ...], name: str) -> Tensor:
    parts = [getattr(module, name).detach() for module in modules]
    joined = torch.cat(parts)
    for module, part in zip(modules, joined.split([len(part) for part in parts]), strict=True):
        getattr(module, name).data = part
    return joined


@dataclass(frozen=True, slots=True)
class DecoderBatch:
    """A batch's tokens on the device; see `layout.BatchLayout`.

    Attributes:
        x: (tokens, width), pictures and words.
        positions: (3, tokens).
        trunk_tokens: how many of them are trunks.
        trunk_at: the cache's place of each of those.
        trunks: their spans.
        filled: the cache's spans, as the trunks see them.
        seen: the cache's spans, as the questions see them.
        asked: the questions' spans, shot by shot.
        twigs: the spans of each stem and twig.
        keys: which stems' and twigs' tokens each of them sees.
        keyed: the spans of those.
        kept: places of the tokens whose hidden states are wanted.
    """

    x: Tensor
    positions: Tensor
    trunk_tokens: int
    trunk_at: Tensor
    trunks: Spans
    filled: Spans
    seen: Spans
    asked: Spans
    twigs: Spans
    keys: Tensor
    keyed: Spans
    kept: Tensor


class TextDecoder:
    """The text side of a transformers Qwen2-VL and its cache.

    Args:
        model: the transformers `...ForConditionalGeneration`.

    Attributes:
        cache: (layers, places, 2, key heads, width): keys and values. The last place is never a shot's.
    """

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        text = model.model.language_model
        self._layers = [join_weights(layer, config.rms_norm_eps) for layer in text.layers]
        self._norm = text.norm.weight.detach()
        self._eps = config.rms_norm_eps
        self._words = model.get_input_embeddings().weight.detach()
        self._head = model.get_output_embeddings().weight.detach()
        rope = config.rope_parameters
        width = config.hidden_size // config.num_attention_heads
        half = width // 2
        exponents = torch.arange(half, dtype=torch.float32, device=self.device) / half
        self._speed = rope["rope_theta"] ** -exponents
        sections = torch.tensor(rope["mrope_section"], device=self.device)
        self._axis = torch.arange(3, device=self.device).repeat_interleave(sections)
        self.cache = self._words.new_zeros(len(self._layers), 1, 2, config.num_key_value_heads, width)

    def reserve(self, tokens: int) -> None:
        """Make the cache hold so many tokens. What it held is lost.

        Raises:
            torch.OutOfMemoryError: there is no room for them; the cache is as large as it was.
        """
        layers, places, *rest = self.cache.shape
        if tokens < places:
            return
        self.cache = self._words.new_zeros(layers, 1, *rest)  # first, so that both need not fit
        try:
            self.cache = self._words.new_zeros(layers, tokens + 1, *rest)
        except torch.OutOfMemoryError:
            self.cache = self._words.new_zeros(layers, places, *rest)
            raise

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self._words.device
        return device

    def embed(self, ids: Tensor) -> Tensor:
        """Words to vectors."""
        return F.embedding(ids, self._words)

    def logits(self, hidden: Tensor) -> Tensor:
        """Over the vocabulary, of the weights' type."""
        return F.linear(hidden, self._head)

    def exact_logits(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Of some tokens only, in float32: bfloat16 rounds a logit of 20 by up to 0.06, and its chance by 6 %."""
        return F.linear(hidden.float(), self._head[tokens].float())

    def log_mass(self, hidden: Tensor) -> Tensor:
        """Logarithm of the softmax's denominator over the vocabulary, float32."""
        return fused.log_mass(self.logits(hidden))

    def read(self, batch: DecoderBatch, halfway: Callable[[], None] | None = None) -> Tensor:
        """Read trunks, stems and twigs; the trunks stay in the cache.

        Args:
            batch: what is read.
            halfway: called when half of the layers are launched.

        Returns:
            Hidden states behind the last norm of the tokens that are kept, (kept, width).
        """
        angles = self._angles(batch.positions)
        x, last = batch.x, len(self._layers) - 1
        for number, layer in enumerate(self._layers):
            cache = self.cache[number]
            qkv = linear.norm_qkv(x, layer.qkv, angles, cache, batch.trunk_at)
            answer = see(cache, qkv, batch).flatten(1)
            if halfway and number == last // 2:
                halfway()
            if number == last:
                x, answer = x[batch.kept], answer[batch.kept]
            self._work(layer, x, answer)
        return fused.rms_norm(x, self._norm, self._eps)

    def step(self, ids: Tensor, positions: Tensor, places: Tensor, spans: Spans, starts: Tensor) -> Tensor:
        """One more token of each caption.

        Args:
            ids: (rows,), the tokens written last.
            positions: (rows,).
            places: (rows,), where the cache takes them.
            spans: the cache's spans, those tokens included.
            starts: int32 (rows + 1,), 0, 1, 2 and so on.

        Returns:
            Logits, (rows, vocabulary).
        """
        angles = self._angles(positions.expand(3, -1))
        x = self.embed(ids)
        for number, layer in enumerate(self._layers):
            query = linear.norm_query(x, layer.qkv, angles, self.cache[number], places)
            self._work(layer, x, attend_one(query, self.cache[number], spans, starts).flatten(1))
        return self.logits(fused.rms_norm(x, self._norm, self._eps))

    def _angles(self, positions: Tensor) -> Angles:
        """Cosines and sines, float32 (tokens, head width / 2).

        Each frequency turns with the time, the row or the column: M-RoPE (Wang et al. 2024, arXiv 2409.12191).
        """
        angles = positions.T.float()[:, self._axis] * self._speed
        return angles.cos(), angles.sin()

    @staticmethod
    def _work(layer: Layer, x: Tensor, answer: Tensor) -> None:
        """What comes behind attention; `x` goes on as the residual stream."""
        linear.add_linear(x, answer, layer.out)
        linear.add_linear(x, linear.norm_silu_times(x, layer.gate_and_up), layer.down)


def see(cache: Tensor, qkv: Tensor, batch: DecoderBatch) -> Tensor:
    """A layer's attention: trunks over themselves, questions over their trunk and over their own stem and twig.

    Args:
        cache: (places, 2, key heads, width): keys and values of the trunks.
        qkv: (tokens, heads of each, width): queries, keys and values of all tokens.
        batch: who sees whom.

    Returns:
        The answers, (tokens, heads, width).
    """
    split, heads = batch.trunk_tokens, qkv.shape[1] - 2 * cache.shape[2]
    query, out = qkv[:, :heads], qkv.new_empty(len(qkv), heads, qkv.shape[2])
    attend_cached(query[:split], cache, batch.trunks, batch.filled, out[:split], causal=True)
    if split < len(qkv):
        mass = attend_cached(query[split:], cache, batch.asked, batch.seen, out[split:], causal=False)
        join_own(out[split:], mass, qkv[split:], batch.keys, twigs=batch.twigs, keyed=batch.keyed)
    return out
