"""What the packed forward saves, on the CPU and the bundled checkpoint: `python -m benchmarks.cpu`.

Two tables, each with its baseline in the first row. Every way is timed once a round, in turn, on one thread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch

import model_loader
from benchmarks import rounds
from benchmarks.written import Written
from engines.base import ShotPictures, ShotReading
from engines.pixels import fit_shot
from engines.runner import ModelRunner
from qwen_shots.errors import CannotLoad, InvalidSettings
from scripts.check_model import scenes
from settings import load_settings
from tests.helpers import BUNDLED


@dataclass(frozen=True, slots=True)
class Stage:
    """The model, a shot for it, and the ways of asking it."""

    written: Written
    captioning: ModelRunner
    scoring: ModelRunner
    shot: ShotPictures


def set_stage(model: str) -> Stage:
    """Load the model on the CPU in float32, as the server does there.

    Raises:
        CannotLoad: the model isn't there or can't be used.
        InvalidSettings: config.yaml or a variable is wrong.
    """
    settings = load_settings(environ={"QWEN_SERVER__MODEL__NAME": model, "QWEN_SERVER__MODEL__DEVICE": "cpu"})
    folder = model_loader.find_files(settings.model.name)
    loaded = model_loader.load(settings.model, folder, model_loader.make_plan(settings.model, folder))
    shot = scenes.film_shot("alley")
    return Stage(
        written=Written(loaded, settings.attributes),
        captioning=ModelRunner(loaded, settings.attributes, settings.model.max_caption_tokens),
        scoring=ModelRunner(loaded, settings.attributes, max_caption_tokens=0),
        shot=fit_shot(shot, loaded.pictures, settings.model.max_frame_tokens),
    )


def whole_answers(stage: Stage, count: int) -> dict[str, rounds.Timing]:
    """A caption and 18 scores, by each way."""
    shot = stage.shot
    ways = {
        "generate, one frame after another": lambda: stage.written.one_by_one(shot),
        "generate, three frames together": lambda: stage.written.together(shot),
        "ours: packed scores, one caption": lambda: stage.captioning.look([shot]),
    }
    return rounds.time_in_turn(ways, rounds=count)


def scores_alone(stage: Stage, count: int) -> dict[str, rounds.Timing]:
    """18 scores and no caption, by each way."""
    shot = stage.shot
    ways = {
        "a forward pass for each question": lambda: stage.written.ask_each(shot),
        "ours: all questions packed": lambda: stage.scoring.look([shot]),
    }
    return rounds.time_in_turn(ways, rounds=count)


def main(arguments: Sequence[str]) -> int:
    """Print both tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.cpu", description=__doc__)
    parser.add_argument("--model", default=BUNDLED, help="a folder or a hub name that is on this disk")
    parser.add_argument("--rounds", type=int, default=7, help="how often each way is timed")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        stage = set_stage(asked.model)
    except (CannotLoad, InvalidSettings) as error:
        print(f"ERROR: {error.detail}", file=sys.stderr)
        return 2
    print(f"{rounds.machine()}\n{_what(stage, asked.model)}; {asked.rounds} rounds in turn after one warm-up")
    print(f"\n{rounds.table(whole_answers(stage, asked.rounds))}\n\n{rounds.table(scores_alone(stage, asked.rounds))}")
    print(f"\nload at the end: {rounds.load()}")
    return 0


def _what(stage: Stage, model: str) -> str:
    """What is asked and how much is written, for these decide the ratios."""
    (answer,) = stage.captioning.look([stage.shot])
    caption = answer.caption if isinstance(answer, ShotReading) else ""
    height, width = stage.shot.pictures[0].shape[:2]
    return (
        f"{model}, float32; one shot, three frames of {width} x {height}; written by generate: "
        f"{stage.written.answer_tokens(1)} tokens a frame or {stage.written.answer_tokens(3)} for three; "
        f"by ours: {stage.written.count(caption)} for the caption"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
