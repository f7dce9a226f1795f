"""Shots a second on a GPU, by each way of asking, and where a shot's time goes: `python -m benchmarks.gpu`.

Random weights in the shape of Qwen2-VL-2B, three key frames of 12 x 21 tokens (what 1280 x 720 comes to under the
default cap), all in one run. The first row is the baseline; the limit is computed from what this card was measured to
do. `--growth` asks how it grows instead. With `--out`, the figures are also written as JSON, for `benchmarks.charts`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import growth, limit, rounds, shapes, stages
from benchmarks.noise import random_shots
from benchmarks.steady import steady_seconds
from benchmarks.written import Written
from engines.base import ShotPictures
from engines.budget import find_room
from engines.probe import probe_shot
from engines.qwen2vl.backbone import Qwen2VL
from engines.runner import ModelRunner
from model_loader import LoadedModel
from qwen_shots.fusion import KEY_FRAMES
from settings import load_settings

ROWS, COLUMNS = 12, 21
CAPTION_TOKENS = 24
WRITTEN_TOKENS = 80  # what a written answer of a frame takes
STEADY_BATCHES = 6


@dataclass(frozen=True, slots=True)
class Stage:
    """What is measured: a warm runner, and the shots of a full batch."""

    loaded: LoadedModel
    runner: ModelRunner
    shots: list[ShotPictures]


def warm_runner(
    loaded: LoadedModel, attributes: Mapping[str, str], caption: int = CAPTION_TOKENS
) -> tuple[ModelRunner, int]:
    """A runner as the engine process has it, and how many tokens its batches hold."""
    runner = ModelRunner(loaded, attributes, caption)
    room = find_room(loaded, runner, ROWS * COLUMNS)
    runner.look([probe_shot(loaded.pictures)])
    runner.backbone.warm_up(room.batch_tokens, room.longest_shot)
    return runner, room.batch_tokens


def ways_of(stage: Stage, batch: int, attributes: Mapping[str, str]) -> dict[str, tuple[int, Callable[[], object]]]:
    """Name to how many shots a call answers, and the call; the first one is the baseline."""
    written, shots, runner = Written(stage.loaded, attributes), stage.shots, stage.runner
    one = shots[0].pictures
    return {
        f"generate, a frame after another, {WRITTEN_TOKENS} tokens each": (
            1,
            lambda: [written.write([[frame]], WRITTEN_TOKENS) for frame in one],
        ),
        f"generate, three frames together, {WRITTEN_TOKENS} tokens": (1, lambda: written.write([one], WRITTEN_TOKENS)),
        f"generate, {batch} shots together": (
            batch,
            lambda: written.write([shot.pictures for shot in shots[:batch]], WRITTEN_TOKENS),
        ),
        "ours, one shot alone": (1, lambda: runner.look(shots[:1])),
        f"ours, {batch} shots together": (batch, lambda: runner.look(shots[:batch])),
    }


def compare(stage: Stage, card: limit.Card, asked: argparse.Namespace, attributes: Mapping[str, str]) -> dict[str, Any]:
    """Every way, the steady state and the limit: seconds a shot."""
    device, repeats = asked.device, asked.repeats
    seconds = {
        name: limit.seconds_of(way, device, repeats) / shots
        for name, (shots, way) in ways_of(stage, asked.batch, attributes).items()
    }
    full = len(stage.shots)
    steady = steady_seconds(stage.runner, [stage.shots] * STEADY_BATCHES)
    seconds[f"ours, batches of {full} in steady state"] = steady / (full * STEADY_BATCHES)
    return seconds | {"limit": least_seconds(stage, card, full)}


def least_seconds(stage: Stage, card: limit.Card, batch: int) -> float:
    """The least time of a shot; what the instruction costs is not in it."""
    backbone = stage.runner.backbone
    assert isinstance(backbone, Qwen2VL)
    read = len(backbone.prepare(stage.shots[:1]).layout.ids)
    work = limit.work_of(
        stage.loaded.model.config,
        picture_tokens=ROWS * COLUMNS,
        pictures=KEY_FRAMES,
        text_tokens=read - KEY_FRAMES * ROWS * COLUMNS,
        caption=CAPTION_TOKENS,
        batch=batch,
    )
    return work.seconds(card)


def main(arguments: Sequence[str]) -> int:
    """Print the tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="2b")
    parser.add_argument("--batch", type=int, default=64, help="shots together")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each way, after one that is not counted")
    parser.add_argument("--growth", action="store_true", help="how it grows, instead of the ways and the stages")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    asked = parser.parse_args(arguments)
    asked.device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if asked.device == "cuda" else torch.float32
    loaded = shapes.random_model(asked.shape, asked.device, dtype)
    attributes = load_settings(environ={}).attributes
    print(f"{torch.cuda.get_device_name() if asked.device == 'cuda' else rounds.machine()}, torch {torch.__version__}")
    if asked.growth:
        told: dict[str, Any] = growth.measure(loaded, attributes, warm_runner, asked.batch, CAPTION_TOKENS)
        print(growth.tables(told))
    else:
        told = _measure(loaded, attributes, asked)
    if asked.out:
        asked.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


def _measure(loaded: LoadedModel, attributes: Mapping[str, str], asked: argparse.Namespace) -> dict[str, Any]:
    card = limit.measure_card(asked.device)
    print(
        f"measured: {card.operations / 1e12:.0f} TFLOP/s in bfloat16 products, "
        f"{card.bandwidth / 1e12:.2f} TB/s copied\n"
    )
    runner, tokens = warm_runner(loaded, attributes)
    a_shot = KEY_FRAMES * ROWS * COLUMNS + runner.backbone.text_tokens(KEY_FRAMES)
    full = max(asked.batch, tokens // a_shot) if asked.device == "cuda" else asked.batch
    stage = Stage(loaded, runner, random_shots(full, ROWS, COLUMNS))
    seconds = compare(stage, card, asked, attributes)
    print(table(seconds))
    parts = stages.measure(runner, stage.shots, asked.device)
    print(f"\n{stages.table(parts)}")
    return {"ways": seconds, "stages": parts}


def table(seconds: dict[str, float]) -> str:
    """A Markdown table: shots a second, times the baseline, share of the limit."""
    baseline, least = next(iter(seconds.values())), seconds["limit"]
    lines = ["| way | shots/s | times the first | of the limit |", "|---|---|---|---|"]
    for name, each in seconds.items():
        lines.append(f"| {name} | {1 / each:.2f} | {baseline / each:.1f} | {least / each:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
