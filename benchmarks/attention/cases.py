"""Batches for attention: laid out by the server's own code, with random queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from benchmarks.noise import random_shots
from engines.qwen2vl.backbone import Qwen2VL, decoder_batch
from engines.qwen2vl.decoder import DecoderBatch
from engines.qwen2vl.layout import BatchLayout
from engines.qwen2vl.spans import Spans
from engines.runner import ModelRunner
from qwen_shots.fusion import KEY_FRAMES

if TYPE_CHECKING:
    from torch import Tensor

# Makes some keys matter far more than others, as in a trained model.
SHARPNESS = 2.0


@dataclass(frozen=True, slots=True)
class Heads:
    """A layer's heads.

    Attributes:
        asking: of queries.
        kept: of keys, and of values.
        width: of each.
    """

    asking: int
    kept: int
    width: int


@dataclass(frozen=True, slots=True)
class Case:
    """What one layer's attention sees of a batch.

    Attributes:
        shots: in the batch.
        shared: tokens of the instruction, which each shot's tokens in the cache begin with.
        heads: the layer's.
        batch: who sees whom.
        cache: (places, 2, key heads, width): keys and values.
        qkv: (tokens, heads of each, width).
    """

    shots: int
    shared: int
    heads: Heads
    batch: DecoderBatch
    cache: Tensor
    qkv: Tensor

    @property
    def questions(self) -> Tensor:
        """All heads of the stems' and twigs' tokens."""
        return self.qkv[self.batch.trunk_tokens :]


def make_case(runner: ModelRunner, tokens: int, grid: tuple[int, int], heads: Heads, like: Tensor) -> Case:
    """As many shots of three pictures as a batch holds.

    Args:
        runner: of any small Qwen2-VL; its model is not asked.
        tokens: that the batch may hold.
        grid: tokens of a picture from top to bottom and from left to right.
        heads: of the layer.
        like: whose device and type the numbers have.
    """
    backbone = runner.backbone
    assert isinstance(backbone, Qwen2VL)
    shots = tokens // (KEY_FRAMES * grid[0] * grid[1] + runner.backbone.text_tokens(KEY_FRAMES))
    prepared = backbone.prepare(random_shots(1, *grid) * shots)
    numbers = {name: tensor.to(like.device) for name, tensor in prepared.numbers.items()}
    return fill(prepared.layout, numbers, heads, like)


def fill(layout: BatchLayout, numbers: dict[str, Tensor], heads: Heads, like: Tensor) -> Case:
    """Random queries, keys and values, from a fixed seed, for a layout.

    Args:
        layout: which token stands where.
        numbers: its arrays on the device, by name.
        heads: of the layer.
        like: whose device and type the numbers have.
    """
    torch.manual_seed(1)
    shots, shared = numbers["shared_at"].shape
    cache = torch.randn_like(like.new_empty(int(layout.places[-1]) + 1, 2, heads.kept, heads.width))
    cache[numbers["shared_at"]] = cache[:shared].clone()
    qkv = torch.randn_like(like.new_empty(len(layout.ids), heads.asking + 2 * heads.kept, heads.width))
    qkv[:, : heads.asking] *= SHARPNESS
    return Case(shots, shared, heads, decoder_batch(like.new_empty(0), layout, numbers), cache, qkv)


def lengths_of(spans: Spans) -> Tensor:
    """Tokens that count of each sequence."""
    return spans.starts.diff() if spans.lengths is None else spans.lengths


def operations(heads: Heads, asking: Spans, asked: Spans, *, causal: bool) -> float:
    """Floating point operations of attention's two products, over what is seen."""
    counts, lengths = lengths_of(asking).double(), lengths_of(asked).double()
    hidden = counts * (counts - 1) / 2 if causal else torch.zeros_like(counts)
    return 4 * heads.asking * heads.width * float((counts * lengths - hidden).sum())
