"""The text's attention over a full batch on a GPU, by flash attention and by kernels: `python -m benchmarks.attention`.

Heads as in Qwen2-VL-2B, batches laid out by the server's own code. Every way is recorded as a CUDA graph and replayed.
A way that is off by more than bfloat16 makes it is marked WRONG; one that doesn't run is listed below its table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from benchmarks import growth, shapes
from benchmarks.attention.cases import Heads, make_case
from benchmarks.attention.figures import compare
from benchmarks.graph_clock import milliseconds_of
from engines.budget import MOST_TOKENS
from engines.runner import ModelRunner
from model_loader import LoadedModel
from settings import load_settings

HEADS = Heads(asking=12, kept=2, width=128)
GRID = 12, 21
CAPTION_TOKENS = 24
ATTRIBUTES = (6, 38)


def runner_of(loaded: LoadedModel, attributes: int) -> ModelRunner:
    """What lays batches out for so many attributes."""
    return ModelRunner(loaded, growth.more(load_settings(environ={}).attributes, attributes), CAPTION_TOKENS)


def main(arguments: Sequence[str]) -> int:
    """Print a table for each number of attributes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.attention", description=__doc__)
    parser.add_argument("--tokens", type=int, default=MOST_TOKENS, help="that a batch holds")
    asked = parser.parse_args(arguments)
    if not (torch.cuda.is_available() and torch.cuda.is_bf16_supported()):
        print("needs a GPU with bfloat16", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    loaded = shapes.random_model("tiny", "cpu", torch.float32)
    like = torch.empty(0, dtype=torch.bfloat16, device="cuda")
    for attributes in ATTRIBUTES:
        with torch.inference_mode():
            case = make_case(runner_of(loaded, attributes), asked.tokens, GRID, HEADS, like)
            print(f"\n## {attributes} attributes, {case.shots} shots\n\n{compare(case, milliseconds_of)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
