"""The real server before an engine of a fixed cost: `python -m benchmarks.fixed_cost MILLISECONDS`.

Requests, decoding, queue, batches and the pipe to the engine process are the real ones; in that process a batch sleeps
instead of being looked at. So what is measured is the server alone. `BENCHMARK_ENGINES` says how many engines there
are. Settings come from `config.yaml` and variables.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from engines import worker
from engines.arena import ArenaReader
from engines.base import EngineInfo, ShotPictures, ShotReading
from engines.stations import OneStep, Stations
from qwen_shots.scoring import Reading
from server import create_app
from serving import process
from settings import Settings
from tests.engines.fake_gpus import SPEC

# Variables, because the engines are processes of their own.
COST_MS = "BENCHMARK_COST_MS"
ENGINES = "BENCHMARK_ENGINES"

READING = Reading(value=0.5, spread=0.1, mass=1.0, mode=0.5)
CAPTION = "A person walks through a dark hallway, the camera follows."
# Some 80 shots of 720p.
BATCH_TOKENS = 80_000
# As the bundled checkpoint's words count with six attributes, of one to three pictures (`Backbone.text_tokens`).
TEXT_TOKENS = 232, 239, 246

real_main = worker.main


def _load(settings: Settings, rank: int) -> tuple[Stations, worker.Ready]:  # noqa: ARG001 # as the real one
    seconds = float(os.environ[COST_MS]) / 1000

    def look(shots: Sequence[ShotPictures]) -> list[ShotReading]:
        time.sleep(seconds)
        return [
            ShotReading(CAPTION, dict.fromkeys(settings.attributes, (READING,) * len(shot.pictures))) for shot in shots
        ]

    info = EngineInfo(f"fixed cost, {os.environ[COST_MS]} ms a batch", "cpu")
    engines = int(os.environ.get(ENGINES, "1"))
    return OneStep(look), worker.Ready(info, SPEC, engines, BATCH_TOKENS, TEXT_TOKENS)


def engine_main(pipe: Connection, settings: Settings, rank: int, arena: ArenaReader | None = None) -> None:
    """What the engine process runs."""
    worker._load = _load  # noqa: SLF001 # the one thing that is not the real one
    real_main(pipe, settings, rank, arena)


def main(milliseconds: str) -> int:
    """Serve until told to stop."""
    os.environ[COST_MS] = milliseconds
    worker.main = engine_main
    return process.main(create_app)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
