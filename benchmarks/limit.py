"""The least time that a shot can take on a GPU: its arithmetic over the card's rate, its bytes over its bandwidth.

Both rates are measured here, on the card at hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

MATRIX = 8192
COPIED_BYTES = 2**31


@dataclass(frozen=True, slots=True)
class Card:
    """What a card does at most.

    Attributes:
        operations: floating point operations a second, bfloat16 matrix products.
        bandwidth: bytes a second, read and written.
    """

    operations: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Work:
    """What a shot asks for.

    Attributes:
        vision: floating point operations of the vision tower.
        prompt: of the text side up to the scores.
        caption_bytes: bytes that writing the caption reads, in a batch of many.
    """

    vision: float
    prompt: float
    caption_bytes: float

    def seconds(self, card: Card) -> float:
        """The least time of one shot among many."""
        return (self.vision + self.prompt) / card.operations + self.caption_bytes / card.bandwidth


def seconds_of(way: Callable[[], object], device: str, repeats: int = 5) -> float:
    """Median time of a way, the device waited for."""
    times = []
    for _ in range(repeats + 1):
        _wait(device)
        began = time.perf_counter()
        way()
        _wait(device)
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[repeats // 2]


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure_card(device: str) -> Card:
    """Time a large matrix product and a large copy."""
    side = MATRIX if device == "cuda" else MATRIX // 8
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(COPIED_BYTES // (2 if device == "cuda" else 64), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Card(
        operations=2 * side**3 / seconds_of(lambda: one @ other, device),
        bandwidth=2 * len(source) / seconds_of(lambda: target.copy_(source), device),
    )


def work_of(config: Any, *, picture_tokens: int, pictures: int, text_tokens: int, caption: int, batch: int) -> Work:
    """Count what one shot asks for.

    Args:
        config: a Qwen2-VL configuration.
        picture_tokens: of one key frame.
        pictures: key frames.
        text_tokens: what is read beside the pictures: instruction, marks, questions.
        caption: tokens written.
        batch: shots that share a reading of the weights.
    """
    eye, text = config.vision_config, config.get_text_config()
    patches = picture_tokens * eye.spatial_merge_size**2
    layer = eye.embed_dim**2 * (4 + 2 * eye.mlp_ratio)
    merger = (eye.embed_dim * eye.spatial_merge_size**2) * (
        eye.embed_dim * eye.spatial_merge_size**2 + text.hidden_size
    )
    vision = pictures * (
        2 * patches * eye.depth * layer + 4 * patches**2 * eye.embed_dim * eye.depth + 2 * picture_tokens * merger
    )
    head = text.hidden_size // text.num_attention_heads
    kept = 2 * text.num_key_value_heads * head
    matrices = text.num_hidden_layers * (
        text.hidden_size * (2 * text.hidden_size + kept) + 3 * text.hidden_size * text.intermediate_size
    )
    length = pictures * picture_tokens + text_tokens
    # Causal: half of the square.
    prompt = 2 * length * matrices + 2 * length**2 * text.hidden_size * text.num_hidden_layers
    step = 2 * (matrices + text.vocab_size * text.hidden_size) / batch + 2 * kept * text.num_hidden_layers * length
    return Work(vision, prompt, caption * step)
