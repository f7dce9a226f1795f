"""Models of the shape of Qwen's, with random weights: as fast or slow as theirs, and nothing to download.

The tokenizer is the bundled checkpoint's, so a prompt has a few tokens more or fewer than with Qwen's own.
`python -m benchmarks.shapes --shape 2b --out DIR` writes one as a folder that the server can load.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from model_loader import LoadedModel, read_picture_spec

BUNDLED = Path(__file__).parent.parent / "models" / "qwen2-vl-film-tiny"

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
# Qwen/Qwen2-VL-7B-Instruct's config.json (Apache-2.0).
QWEN2_VL_7B: dict[str, Any] = {
    "text_config": QWEN2_VL_2B["text_config"]
    | {"vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "tie_word_embeddings": False}
    | {"num_attention_heads": 28, "num_key_value_heads": 4},
    "vision_config": QWEN2_VL_2B["vision_config"] | {"hidden_size": 3584},
    "tie_word_embeddings": False,
}
# Its preprocessor_config.json: the bundled checkpoint was made for smaller pictures, which would be taken as its limit.
MAX_PIXELS = 12_845_056
# The same in small, to try a benchmark out on a CPU.
TINY: dict[str, Any] = {
    "text_config": QWEN2_VL_2B["text_config"]
    | {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    | {"num_attention_heads": 4, "rope_parameters": {"rope_type": "default", "mrope_section": [8, 12, 12]}},
    "vision_config": {"depth": 2, "embed_dim": 128, "hidden_size": 256, "num_heads": 4, "mlp_ratio": 4},
    "tie_word_embeddings": True,
}
SHAPES = {"2b": QWEN2_VL_2B, "7b": QWEN2_VL_7B, "tiny": TINY}


def random_model(shape: str, device: str, dtype: torch.dtype) -> LoadedModel:
    """A model with weights from a fixed seed.

    Args:
        shape: one of SHAPES.
        device: where it is made; nothing of it passes through the CPU's memory.
        dtype: of the weights.
    """
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED, local_files_only=True)
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
    return LoadedModel(model.eval(), tokenizer, replace(read_picture_spec(BUNDLED, config), max_pixels=MAX_PIXELS))


# What a folder of random weights takes from the bundled checkpoint.
TAKEN = ("chat_template.jinja", "tokenizer.json")
# And with other values.
CHANGED: dict[str, dict[str, Any]] = {
    "tokenizer_config.json": {"eos_token": None},
    "preprocessor_config.json": {"max_pixels": MAX_PIXELS},
}


def save(shape: str, folder: Path, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> None:
    """Write a model of random weights as a checkpoint whose captions do not stop before the limit.

    Args:
        shape: one of SHAPES.
        folder: made where it is missing.
        dtype: of the weights in the files.
        device: where the weights are drawn; a GPU takes seconds for what takes a CPU a minute.
    """
    loaded = random_model(shape, device, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    loaded.model.save_pretrained(folder, max_shard_size="2GB")
    for name in TAKEN:
        shutil.copy(BUNDLED / name, folder / name)
    for name, values in CHANGED.items():
        (folder / name).write_text(json.dumps(json.loads((BUNDLED / name).read_text()) | values, indent=2))


def main(arguments: Sequence[str]) -> int:
    """Write one; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.shapes", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="2b")
    parser.add_argument("--out", type=Path, required=True, help="the folder; 4.4 GB for 2b, 16.6 for 7b")
    asked = parser.parse_args(arguments)
    save(asked.shape, asked.out, device="cuda" if torch.cuda.is_available() else "cpu")
    print(f"{asked.out}: {sum(file.stat().st_size for file in asked.out.iterdir()) / 1e9:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
