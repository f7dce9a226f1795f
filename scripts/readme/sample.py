"""Writes the requests with a real shot, cut from the sample film by the project's own client.

samples/shot.json is as the client sends it; qwen_shots/example_shot.json has the same frames small, for /docs and
`qwen-shots server try`.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from PIL import Image

from qwen_shots.client.shots import Shot
from qwen_shots.client.wire import wire_shots
from qwen_shots.example import EXAMPLE_CREDIT, EXAMPLE_FILE
from scripts.readme.examples import ROOT

FILM = ROOT / "samples/sintel-trailer.mp4"
REQUEST = ROOT / "samples/shot.json"
CREDIT = f"Frames: {EXAMPLE_CREDIT}"

# Seconds: she walks through a dark alley.
ALLEY = Shot(18.5, 21.0)

SMALL_SIDE = 240
SMALL_QUALITY = 60


def main() -> None:
    """Write both files."""
    (shot,) = wire_shots(FILM, [ALLEY])
    REQUEST.write_text(json.dumps(shot.model_dump(), indent=1) + "\n", encoding="utf-8")
    small = {**_rounded(shot.model_dump()), "images": [_small(image) for image in shot.images]}
    (ROOT / "qwen_shots" / EXAMPLE_FILE).write_text(json.dumps(small, indent=1) + "\n", encoding="utf-8")


def _small(image: str) -> str:
    picture = Image.open(io.BytesIO(base64.b64decode(image)))
    picture.thumbnail((SMALL_SIDE, SMALL_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=SMALL_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def _rounded(value: Any) -> Any:
    """Four digits are more than the sound's measures are sure of, and can be read."""
    match value:
        case dict():
            return {name: _rounded(each) for name, each in value.items()}
        case list():
            return [_rounded(each) for each in value]
        case float():
            return float(f"{value:.4g}")
        case _:
            return value


if __name__ == "__main__":
    main()
