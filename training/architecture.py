"""The bundled model's shape: Qwen2-VL's own architecture, small enough for a laptop.

Text heads are 64 wide because vLLM's CPU attention asks for that much.
"""

from __future__ import annotations

import json
from pathlib import Path

from transformers import GenerationConfig, Qwen2TokenizerFast, Qwen2VLConfig

TEXT_WIDTH = 384
HEAD_WIDTH = 64
MAX_PICTURE_TOKENS = 120  # it was trained on no larger pictures
# Mean and standard deviation of CLIP's training pictures, which Qwen2-VL normalises by (Radford et al. 2021).
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]

PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
    "do_convert_rgb": True,
    "do_rescale": True,
    "do_resize": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
    "resample": 3,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "min_pixels": 56 * 56,
    "max_pixels": 28 * 28 * MAX_PICTURE_TOKENS,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
}


def small_config(tokenizer: Qwen2TokenizerFast) -> Qwen2VLConfig:
    """About 19 M parameters with a vocabulary of 2,048."""
    token = tokenizer.convert_tokens_to_ids
    return Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 1024,
            "num_hidden_layers": 7,
            "num_attention_heads": TEXT_WIDTH // HEAD_WIDTH,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 12, 12]},
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={"depth": 7, "embed_dim": 256, "hidden_size": TEXT_WIDTH, "num_heads": 4, "mlp_ratio": 4},
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def save_companions(folder: Path, tokenizer: Qwen2TokenizerFast) -> None:
    """Write everything beside the weights: tokenizer, chat template, processor, generation settings."""
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR, indent=2) + "\n")
    processor = {"image_processor": PROCESSOR, "processor_class": "Qwen2VLProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    ).save_pretrained(folder)
