"""Measure the bundled checkpoint and write the figures into its card.

    python -m training.evaluate                    # takes some minutes on two cores
    python -m training.evaluate --shots 64         # a quick look; writes nothing

The figures go to `training/results/figures.json`, the tables between the marks of `models/README.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import model_loader
from engines.runner import ModelRunner
from settings import load_settings
from training.card import write_tables
from training.film.scenes import PLACES, UNSEEN_PLACES
from training.judge_film import FilmShot, agreement, look_at_film, shots_and_pieces
from training.judge_scenes import Judgement, KnownShots, ask, judge, known_shots, of_shot

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models/qwen2-vl-film-tiny"
RESULTS = ROOT / "training/results/figures.json"
FILMS = (ROOT / "samples/sintel-trailer.mp4", ROOT / "samples/big-buck-bunny-30s.mp4")

# Never trained on: training counts up from 0, and its own held-out scenes are at 1,000,000,000.
SEED = 2_000_000_000
SHOTS = 400
SHOTS_IN_BOTH = 64  # asked in bfloat16 too
TIMED = 7


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that the card tells.

    Attributes:
        seen: scenes of the kinds that were trained on, new seeds.
        unseen: scenes of kinds that were never trained on.
        shots: of the real clips, as the shot finder cuts them.
        by_shot: rank correlations over these.
        by_piece: the same over pieces of a second and a half.
        largest_move: of any score between float32 and bfloat16, a shot's and a single frame's.
        seconds: median time of one shot alone, three key frames, caption and scores, float32 on the CPU.
        threads: of that.
    """

    seen: Judgement
    unseen: Judgement
    shots: list[FilmShot]
    by_shot: dict[str, float]
    by_piece: dict[str, float]
    pieces: int
    largest_move: dict[str, float]
    seconds: float
    threads: int


def load(dtype: str) -> tuple[ModelRunner, model_loader.PictureSpec]:
    """The checkpoint as the server loads it, on the CPU."""
    overrides = {"MODEL__NAME": str(MODEL), "MODEL__DEVICE": "cpu", "MODEL__DTYPE": dtype}
    settings = load_settings(environ={f"QWEN_SERVER__{name}": value for name, value in overrides.items()})
    folder = model_loader.find_files(settings.model.name)
    loaded = model_loader.load(settings.model, folder, model_loader.make_plan(settings.model, folder))
    return ModelRunner(loaded, settings.attributes, settings.model.max_caption_tokens), loaded.pictures


def compare_dtypes(runner: ModelRunner, truth: KnownShots) -> dict[str, float]:
    """How far bfloat16 moves a score from float32."""
    shots = truth.shots[:: max(1, len(truth.shots) // SHOTS_IN_BOTH)]
    half, _ = load("bfloat16")
    of_frame, of_shots = [], []
    for exact, rounded in zip(ask(runner, shots), ask(half, shots), strict=True):
        of_shots.append(np.abs(of_shot(exact) - of_shot(rounded)).max())
        of_frame += [
            abs(one.value - other.value)
            for name in exact.readings
            for one, other in zip(exact.readings[name], rounded.readings[name], strict=True)
        ]
    return {"shot": float(max(of_shots)), "frame": float(max(of_frame))}


def time_one(runner: ModelRunner, truth: KnownShots) -> float:
    """Median seconds of one shot alone, of the largest size."""
    shot = max(truth.shots, key=lambda shot: shot.pictures[0].size)
    took = []
    for _ in range(TIMED + 1):
        began = time.perf_counter()
        list(ask(runner, [shot]))
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:])


def measure(count: int) -> Figures:
    """Ask the checkpoint everything."""
    runner, spec = load("float32")
    seen, unseen = known_shots(SEED, count, PLACES), known_shots(SEED + 100, count, UNSEEN_PLACES)
    shots: list[FilmShot] = []
    pieces: list[FilmShot] = []
    for path in FILMS:
        whole, cut = shots_and_pieces(path)
        shots += look_at_film(runner, spec, path, whole)
        pieces += look_at_film(runner, spec, path, cut)
    return Figures(
        seen=judge(list(ask(runner, seen.shots)), seen),
        unseen=judge(list(ask(runner, unseen.shots)), unseen),
        shots=shots,
        by_shot=agreement(shots),
        by_piece=agreement(pieces),
        pieces=len(pieces),
        largest_move=compare_dtypes(runner, seen),
        seconds=time_one(runner, seen),
        threads=torch.get_num_threads(),
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=SHOTS, help="rendered shots of each kind")
    count = parser.parse_args().shots
    figures = measure(count)
    if count != SHOTS:
        print(json.dumps(asdict(figures), indent=1))
        return
    RESULTS.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    write_tables(ROOT / "models/README.md", json.loads(RESULTS.read_text()))
    print(f"written: {RESULTS.relative_to(ROOT)}, models/README.md")


if __name__ == "__main__":
    main()
