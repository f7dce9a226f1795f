"""Small models with random weights of the other families that are served."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.helpers import BUNDLED, ROOT

VISION: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 128,
        "fullatt_block_indexes": [1], "window_size": 56,
    },
    "qwen3_vl": {
        "depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 128,
        "deepstack_visual_indexes": [0, 1], "patch_size": 16, "num_position_embeddings": 256,
    },
}  # fmt: skip

VISION["qwen3_vl_moe"] = VISION["qwen3_vl"]
TEXT: dict[str, dict[str, Any]] = {
    "qwen3_vl_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "decoder_sparse_step": 1},
}

COMPANIONS = ("tokenizer*", "preprocessor_config.json", "chat_template.jinja", "generation_config.json")


def tiny_model(family: str) -> Any:
    """A transformers model of `family` that shares the bundled checkpoint's tokens; the same weights each time."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    ours = AutoConfig.from_pretrained(ROOT / BUNDLED)
    text = {
        "vocab_size": ours.text_config.vocab_size, "hidden_size": 128, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64,
        "eos_token_id": ours.text_config.eos_token_id,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e4, "mrope_section": [12, 10, 10], "mrope_interleaved": True,
        },
        **TEXT.get(family, {}),
    }  # fmt: skip
    ids = {name: getattr(ours, name) for name in ("image_token_id", "video_token_id", "vision_start_token_id")}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, text_config=text, vision_config=VISION[family], **ids)
    return AutoModelForImageTextToText.from_config(config).eval()


def save_tiny_model(family: str, folder: Path) -> Path:
    """`tiny_model` as a checkpoint on disk."""
    tiny_model(family).save_pretrained(folder)
    for pattern in COMPANIONS:
        for file in (ROOT / BUNDLED).glob(pattern):
            shutil.copy(file, folder)
    return folder
