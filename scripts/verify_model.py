"""Analyse one frame with the model that the configuration names, by the parts that the server is made of."""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from pathlib import Path

from analyzer import ShotAnalyzer
from engines.base import Status
from engines.choice import make_engine
from qwen_shots.errors import CannotLoad, QwenShotsError
from qwen_shots.schemas import Analysis, Shot
from settings import Settings, load_settings

POLL_SECONDS = 0.1
FRAME = Path(__file__).parent.parent / "samples" / "frames" / "face-1.jpg"


def main() -> int:
    """Print the analysis. 1: the model can't be loaded, or it can't analyse."""
    began = time.monotonic()
    try:
        settings = load_settings()
        analysis, device = asyncio.run(_analyze(settings))
    except QwenShotsError as error:
        print(f"ERROR: {error.detail}", file=sys.stderr)
        return 1
    scores = ", ".join(f"{name} {score:.2f}" for name, score in analysis.attributes.items())
    print(f'a film frame on {device}: "{analysis.caption}" ({scores}); {time.monotonic() - began:.0f} s with loading')
    return 0


async def _analyze(settings: Settings) -> tuple[Analysis, str | None]:
    engine = make_engine(settings)
    analyzer = ShotAnalyzer(engine, settings.processing)
    await engine.start()
    try:
        while engine.status is Status.LOADING:
            await asyncio.sleep(POLL_SECONDS)
        if engine.failure:
            raise CannotLoad(engine.failure)
        return await analyzer.analyze(_frame()), engine.info.device
    finally:
        await engine.close()
        analyzer.close()


def _frame() -> Shot:
    """A frame of a film (samples/ATTRIBUTION.md)."""
    picture = base64.b64encode(FRAME.read_bytes()).decode()
    return Shot.model_validate({"shot_id": 1, "images": [picture], "start_time": 0.0, "end_time": 1.0, "duration": 1.0})


if __name__ == "__main__":
    sys.exit(main())
