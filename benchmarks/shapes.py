"""Models of the shape of Qwen's, with random weights: as fast or slow as theirs, and nothing to download.

The tokenizer is the bundled checkpoint's, so a prompt has a few tokens more or fewer than with Qwen's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from model_loader import LoadedModel, read_picture_spec
from tests.helpers import BUNDLED, ROOT

# Qwen/Qwen2-VL-2B-Instruct's config.json (Apache-2.0).
QWEN2_VL_2B: dict[str, Any] = {
    "text_config": {
        "vocab_size": 151_936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": True,
    },
    "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4},
    "tie_word_embeddings": True,
}
# The same in small, to try a benchmark out on a CPU.
TINY: dict[str, Any] = {
    "text_config": QWEN2_VL_2B["text_config"]
    | {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    | {"num_attention_heads": 4, "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12]}},
    "vision_config": {"depth": 2, "embed_dim": 128, "hidden_size": 256, "num_heads": 4, "mlp_ratio": 4},
    "tie_word_embeddings": True,
}
SHAPES = {"2b": QWEN2_VL_2B, "tiny": TINY}


def random_model(shape: str, device: str, dtype: torch.dtype) -> LoadedModel:
    """A model with weights from a fixed seed.

    Args:
        shape: one of SHAPES.
        device: where it is made; nothing of it passes through the CPU's memory.
        dtype: of the weights.
    """
    folder = Path(ROOT / BUNDLED)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    token = tokenizer.convert_tokens_to_ids
    config = Qwen2VLConfig(
        **SHAPES[shape],
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        attn_implementation="sdpa",
    )
    torch.manual_seed(1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen2VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    # Never stops by itself: every caption is as long as the limit.
    model.generation_config.eos_token_id = None
    return LoadedModel(model.eval(), tokenizer, read_picture_spec(folder, config))
