"""Draw the untrained stand-in: Qwen2-VL's architecture, weights from a fixed seed.

    python -m training.untrained models/qwen2-vl-untrained

Its captions are noise and its scores mean nothing. It lets the server, the demo and the tests run everywhere, and its
name says what it is.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import Qwen2VLForConditionalGeneration

from qwen_shots import prompt
from settings import load_settings
from training.architecture import save_companions, small_config
from training.tokenizer import train_tokenizer

SEED = 20_260_101
VOCABULARY = 2048
SHARD_SIZE = "15MB"

WHO = ("a person", "two people", "a crowd", "a face in close-up", "a car", "a fire", "a title card", "an empty place")
WHERE = ("in a room", "in a corridor", "on a street", "in a forest", "by the sea", "under the open sky", "in the rain")
WHEN = ("by day", "at dusk", "at night", "in fog", "in hard light", "in soft light")
CAMERA = ("the camera stands still", "pans left", "pans right", "tilts up", "zooms in", "follows", "is hand-held")


def corpus() -> Iterator[str]:
    """The instruction, the questions and sentences of the kind that captions are made of."""
    attributes = load_settings(environ={}).attributes
    yield prompt.instruction(attributes)
    for picture, name in itertools.product(range(1, 4), attributes):
        yield prompt.score_branch(picture, name)
    for words in itertools.product(WHO, WHERE, WHEN, CAMERA):
        yield f"{prompt.CAPTION_CUE} {' '.join(words[:3])}, {words[3]}."


def draw(folder: Path) -> None:
    """Write the checkpoint into `folder`; the same seed gives the same weights."""
    tokenizer = train_tokenizer(corpus(), VOCABULARY)
    torch.manual_seed(SEED)
    model = Qwen2VLForConditionalGeneration(small_config(tokenizer)).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    save_companions(folder, tokenizer)
    parameters = sum(weights.numel() for weights in model.parameters())
    print(f"{folder}: {parameters / 1e6:.1f} M parameters, {len(tokenizer)} tokens, untrained")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
