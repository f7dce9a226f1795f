"""How the time of a shot grows: with shots in flight, the pictures' size, the attributes and the caption's length."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks import limit
from benchmarks.noise import random_shots
from engines.base import ShotPictures
from engines.runner import ModelRunner
from model_loader import LoadedModel
from qwen_shots.fusion import KEY_FRAMES

IN_FLIGHT = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
GRIDS = ((8, 8), (8, 16), (16, 16), (16, 32), (32, 32))
ATTRIBUTES = (6, 12, 24, 38, 64)
CAPTIONS = (8, 16, 24, 48, 64)
ROWS, COLUMNS = 12, 21
# Names of more attributes: words that are one token of the bundled tokenizer, as common words are of Qwen's. Every
# other one is made of two, so that they are as long as the six that the server asks by default.
WORDS = (
    "wonder energy contrast wild tender cheerful intimate magic power pace depth strain hollow curious dense "
    "damp bright shadow blood fire water crowd urban music dream escape shelter witness flood future black "
    "gold blue pink summer mist wind path prison dragon flower flight edge zoom color full very card medium "
    "short crane scale swim door face body mouth knife "
).split()
MORE = "from none to very much"
REPEATS = 2

Warm = Callable[[LoadedModel, Mapping[str, str], int], tuple[ModelRunner, int]]
Curve = dict[str, float]
"""Milliseconds a shot, by what grows."""


def measure(loaded: LoadedModel, attributes: Mapping[str, str], warm: Warm, batch: int, caption: int) -> dict[str, Any]:
    """Time all four.

    Args:
        loaded: the model.
        attributes: six of them.
        warm: makes a runner, and tells how many tokens its batches hold.
        batch: shots together where their number is not what grows.
        caption: tokens of a caption, likewise.
    """
    device = loaded.model.device.type
    shots = random_shots(max(IN_FLIGHT), ROWS, COLUMNS)
    runner, tokens = warm(loaded, attributes, caption)
    told = {
        "shots in flight": {str(n): _time(runner, shots[:n], tokens, device) for n in IN_FLIGHT},
        "tokens of a picture": {
            str(rows * columns): _time(runner, random_shots(batch, rows, columns), tokens, device)
            for rows, columns in GRIDS
        },
    }
    del runner
    told["attributes"] = {
        str(n): _warm_and_time(loaded, more(attributes, n), warm, caption, shots[:batch]) for n in ATTRIBUTES
    }
    told["tokens of a caption"] = {str(n): _warm_and_time(loaded, attributes, warm, n, shots[:batch]) for n in CAPTIONS}
    return told


def more(attributes: Mapping[str, str], count: int) -> dict[str, str]:
    """So many attributes: those that there are, and made-up ones."""
    names = [word if n % 2 else f"{WORDS[n - 1]} {word}" for n, word in enumerate(WORDS)]
    made_up = {name: f"how much {name} there is in the picture, {MORE}" for name in names}
    return dict([*attributes.items(), *made_up.items()][:count])


def _warm_and_time(
    loaded: LoadedModel, attributes: Mapping[str, str], warm: Warm, caption: int, shots: Sequence[ShotPictures]
) -> float:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    runner, tokens = warm(loaded, attributes, caption)
    return _time(runner, shots, tokens, loaded.model.device.type)


def _time(runner: ModelRunner, shots: Sequence[ShotPictures], tokens: int, device: str) -> float:
    """Milliseconds a shot, in full batches where one does not hold them."""
    height, width, _ = shots[0].pictures[0].shape
    a_shot = KEY_FRAMES * height * width // 28**2 + runner.backbone.text_tokens(KEY_FRAMES)
    most = max(1, tokens // a_shot)
    if len(shots) > most:
        shots = shots[: len(shots) // most * most]

    def look() -> None:
        for start in range(0, len(shots), most):
            runner.look(shots[start : start + most])

    look()  # the second time, a shot alone is recorded
    return 1e3 * limit.seconds_of(look, device, REPEATS) / len(shots)


def tables(told: Mapping[str, Curve]) -> str:
    """A Markdown table for each."""
    parts = []
    for name, curve in told.items():
        first = next(iter(curve.values()))
        lines = [f"| {name} | ms a shot | shots/s | times the first |", "|---|---|---|---|"]
        lines += [f"| {n} | {ms:.2f} | {1e3 / ms:.1f} | {ms / first:.2f} |" for n, ms in curve.items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
