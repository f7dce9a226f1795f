"""Shots a second on a GPU, by each way of asking: `python -m benchmarks.gpu`.

Random weights in the shape of Qwen2-VL-2B, three key frames of 18 x 14 tokens (about 1280 x 720 under the default cap),
all in one run. The first row is the baseline; the limit is computed from what this card was measured to do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks import limit, rounds, shapes
from benchmarks.written import Written
from engines.base import ShotPictures
from engines.runner import ModelRunner
from settings import load_settings

ROWS, COLUMNS, TOKEN_SIDE = 14, 18, 28
KEY_FRAMES = 3
CAPTION_TOKENS = 24
WRITTEN_TOKENS = 80  # what a written answer of a frame takes


def random_shots(count: int) -> list[ShotPictures]:
    """Shots of noise: no two tokens are alike."""
    random = np.random.default_rng(1)
    side = (ROWS * TOKEN_SIDE, COLUMNS * TOKEN_SIDE, 3)
    return [
        ShotPictures(tuple(random.integers(0, 255, side, dtype=np.uint8) for _ in range(KEY_FRAMES)))
        for _ in range(count)
    ]


def ways_of(written: Written, runner: ModelRunner, batch: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """Name to how many shots a call answers, and the call; the first one is the baseline."""
    shots = random_shots(batch)
    one = shots[0].pictures
    return {
        f"generate, a frame after another, {WRITTEN_TOKENS} tokens each": (
            1,
            lambda: [written.write([[frame]], WRITTEN_TOKENS) for frame in one],
        ),
        f"generate, three frames together, {WRITTEN_TOKENS} tokens": (1, lambda: written.write([one], WRITTEN_TOKENS)),
        f"generate, {batch} shots together": (
            batch,
            lambda: written.write([shot.pictures for shot in shots], WRITTEN_TOKENS),
        ),
        "ours, one shot alone": (1, lambda: runner.look(shots[:1])),
        f"ours, {batch} shots together": (batch, lambda: runner.look(shots)),
    }


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="2b")
    parser.add_argument("--batch", type=int, default=64, help="shots together")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each way, after one that is not counted")
    asked = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    loaded = shapes.random_model(asked.shape, device, dtype)
    settings = load_settings(environ={})
    runner = ModelRunner(loaded, settings.attributes, CAPTION_TOKENS)
    card = limit.measure_card(device)
    print(f"{torch.cuda.get_device_name() if device == 'cuda' else rounds.machine()}, torch {torch.__version__}")
    print(
        f"measured: {card.operations / 1e12:.0f} TFLOP/s in bfloat16 products, "
        f"{card.bandwidth / 1e12:.2f} TB/s copied\n"
    )
    ways = ways_of(Written(loaded, settings.attributes), runner, asked.batch)
    work = limit.work_of(
        loaded.model.config,
        picture_tokens=ROWS * COLUMNS,
        pictures=KEY_FRAMES,
        text_tokens=runner.text_tokens(KEY_FRAMES),
        caption=CAPTION_TOKENS,
        batch=asked.batch,
    )
    seconds = {name: limit.seconds_of(way, device, asked.repeats) / shots for name, (shots, way) in ways.items()}
    print(table(seconds, work.seconds(card)))
    return 0


def table(seconds: dict[str, float], least: float) -> str:
    """A Markdown table: shots a second, times the baseline, share of the limit."""
    baseline = next(iter(seconds.values()))
    lines = ["| way | shots/s | times the first | of the limit |", "|---|---|---|---|"]
    for name, each in (seconds | {"limit": least}).items():
        lines.append(f"| {name} | {1 / each:.2f} | {baseline / each:.1f} | {least / each:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
