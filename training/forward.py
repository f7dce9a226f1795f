"""The model's forward pass for batches of equal shape: the same arithmetic as transformers', without its loops.

transformers runs the vision tower's attention one picture at a time; here all pictures of a batch go in together, for
they are of one size. The text side is transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from training.architecture import CLIP_MEAN, CLIP_STD
from training.batches import Layout

Layer = Callable[[Any, Tensor, Tensor, Tensor], Tensor]

PATCH, MERGE, TEMPORAL = 14, 2, 2


def to_patches(film: Tensor) -> Tensor:
    """Pictures to rows of patch values, as `engines.pixels.to_patches` does it.

    Args:
        film: uint8 of shape (N, 3, height, width), sides multiples of 28.

    Returns:
        float32 of shape (N, patches, 1176).
    """
    mean, std = (torch.tensor(values, device=film.device).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    scaled = (film.float() / 255 - mean) / std
    count, _, height, width = film.shape
    rows, columns = height // (PATCH * MERGE), width // (PATCH * MERGE)
    tiles = scaled.reshape(count, 3, rows, MERGE, PATCH, columns, MERGE, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
    flat = tiles.reshape(count, rows * columns * MERGE**2, 3, 1, PATCH * PATCH)
    return flat.expand(-1, -1, -1, TEMPORAL, -1).reshape(count, rows * columns * MERGE**2, -1)


def look_at(visual: Any, film: Tensor, layer: Layer) -> Tensor:
    """The vision tower on pictures of one size.

    Args:
        visual: `model.model.visual` of Qwen2-VL.
        film: uint8 of shape (N, 3, height, width).
        layer: `through_layer`, or a faster one.

    Returns:
        Picture tokens, (N, tokens, text width).
    """
    patches = to_patches(film)
    weight = visual.patch_embed.proj.weight
    hidden = F.linear(patches.to(weight.dtype), weight.flatten(1))
    cos, sin = _rotary(visual, film)
    for block in visual.blocks:
        hidden = layer(block, hidden, cos, sin)
    merged = visual.merger.ln_q(hidden).reshape(len(film), -1, visual.merger.hidden_size)
    tokens: Tensor = visual.merger.mlp(merged)
    return tokens


def through_layer(block: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One layer of the vision tower, (N, patches, width)."""
    hidden = hidden + _attend(block.attn, block.norm1(hidden), cos, sin)
    out: Tensor = hidden + block.mlp(block.norm2(hidden))
    return out


def compile_layers(model: Any) -> Layer:
    """Fuse the small operations of all layers: a third less time a step on a GPU, for half a minute at the start.

    Returns:
        `through_layer`, faster; the text side's layers are changed in place.
    """
    for layer in model.model.language_model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    faster: Layer = torch.compile(through_layer, dynamic=True)
    return faster


def _rotary(visual: Any, film: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles, (patches, 1, head width): patches of one token stand together."""
    rows, columns = (side // (PATCH * MERGE) for side in film.shape[-2:])
    down, across = torch.meshgrid(
        torch.arange(rows * MERGE, device=film.device), torch.arange(columns * MERGE, device=film.device), indexing="ij"
    )
    order = [grid.reshape(rows, MERGE, columns, MERGE).permute(0, 2, 1, 3).flatten() for grid in (down, across)]
    frequencies = visual.rotary_pos_emb.inv_freq.to(film.device)
    angles = torch.cat([place[:, None] * frequencies for place in order], dim=-1)
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos(), angles.sin()


def _attend(attention: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    count, patches, width = hidden.shape
    query, key, value = attention.qkv(hidden).reshape(count, patches, 3, attention.num_heads, -1).unbind(2)
    query, key = (_rotate(part, cos, sin) for part in (query, key))
    seen = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    out: Tensor = attention.proj(seen.transpose(1, 2).reshape(count, patches, width))
    return out


def _rotate(part: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = part.float().chunk(2, dim=-1)
    return (part.float() * cos + torch.cat([-right, left], dim=-1) * sin).to(part.dtype)


def read(
    model: Any, layout: Layout, film: Tensor, captions: Tensor, layer: Layer = through_layer
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits over the vocabulary where scores and caption are read.

    Args:
        model: Qwen2-VL for conditional generation.
        layout: of the batch.
        film: uint8 (B, K, 3, height, width).
        captions: token ids (B, CAPTION_TOKENS), negative where there are none.
        layer: of the vision tower; `through_layer`, or a faster one.

    Returns:
        For whole numbers (B, K * attributes, vocabulary), for digits likewise, for captions (B, tokens, vocabulary).
    """
    shots = len(film)
    ids = layout.ids.repeat(shots, 1)
    ids[:, layout.caption[1:]] = captions[:, :-1].clamp(min=0)
    embedded = model.get_input_embeddings()(ids)
    seen = look_at(model.model.visual, film.flatten(0, 1), layer).reshape(shots, -1, embedded.shape[-1])
    # In the numbers of the layers: what is added to them in float32 would stay so, and be twice as slow.
    dtype = seen.dtype
    embedded = embedded.to(dtype).index_copy(1, layout.pictures, seen)
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        position_ids=layout.positions.expand(-1, shots, -1),
        attention_mask=layout.mask.to(dtype).expand(shots, -1, -1, -1),
        use_cache=False,
    ).last_hidden_state
    head = model.get_output_embeddings()
    wholes, digits, words = (head(hidden[:, columns]) for columns in (layout.wholes, layout.digits, layout.caption))
    return wholes, digits, words
