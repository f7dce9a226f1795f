"""How many tokens one batch may hold: as many as help, and no more than the GPU's free memory has room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.qwen2vl.backbone import HEAD_ROWS
from engines.qwen2vl.tower import CHUNK_PATCHES
from qwen_shots.fusion import KEY_FRAMES

if TYPE_CHECKING:
    from engines.runner import ModelRunner
    from model_loader import LoadedModel

# Some 128 shots of three full pictures and six attributes, as many as the largest recorded step of captions has rows,
# or 76 with 38: beyond that a batch only takes longer (benchmarks/README.md).
MOST_TOKENS = 128_000
# What a model of several GPUs, or of a family that pads its batches, gets: some 30 of those shots.
PADDED_TOKENS = 36_864

# Of the free memory, the share that is counted on: the allocator leaves gaps.
SHARE = 0.85


@dataclass(frozen=True, slots=True)
class Room:
    """What fits.

    Attributes:
        batch_tokens: tokens of a batch.
        longest_shot: tokens of a shot with three pictures as large as they may be.
    """

    batch_tokens: int
    longest_shot: int


def find_room(loaded: LoadedModel, runner: ModelRunner, max_frame_tokens: int) -> Room:
    """Look at the model's device.

    Args:
        loaded: the model, with its weights in place and no batch in hand.
        runner: what asks it.
        max_frame_tokens: tokens of a picture at most, by the settings.
    """
    import torch

    longest = KEY_FRAMES * loaded.pictures.max_tokens(max_frame_tokens) + runner.backbone.text_tokens(KEY_FRAMES)
    device = loaded.model.get_input_embeddings().weight.device
    if device.type != "cuda" or not runner.ragged:
        return Room(PADDED_TOKENS, longest)
    free, _ = torch.cuda.mem_get_info(device)
    left = free * SHARE - fixed_bytes(loaded.model.config, loaded.dtype.itemsize)
    tokens = int(left / bytes_a_token(loaded.model.config, loaded.dtype.itemsize, loaded.pictures.factor))
    return Room(max(longest, min(MOST_TOKENS, tokens)), longest)


def bytes_a_token(config: Any, itemsize: int, factor: int) -> int:
    """What one more token in a batch takes: its keys and values, the text layers' inner tensors, its pixels.

    Args:
        config: of a Qwen2-VL.
        itemsize: bytes of a number.
        factor: pixels a token measures on each side.
    """
    text = config.get_text_config()
    head = text.hidden_size // text.num_attention_heads
    kept = text.num_hidden_layers * 2 * text.num_key_value_heads * head
    inner = 3 * text.intermediate_size + 8 * text.hidden_size
    return int(itemsize * (kept + inner) + 3 * factor**2)


def fixed_bytes(config: Any, itemsize: int) -> int:
    """What every batch takes whatever its size: the vision tower's inner tensors and the logits, a part at a time."""
    text, vision = config.get_text_config(), config.vision_config
    pixels = 3 * vision.patch_size**2 * itemsize * 4  # four copies at most
    tower = CHUNK_PATCHES * (itemsize * vision.embed_dim * (8 + 2 * int(vision.mlp_ratio)) + pixels)
    logits = HEAD_ROWS * text.vocab_size * itemsize * 2
    return int(tower + logits)
