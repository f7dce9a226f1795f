"""Writes samples/shot.json: a request with a real shot, cut from the sample film by the project's own client."""

from __future__ import annotations

import json

from qwen_shots.client.shots import Shot
from qwen_shots.client.wire import wire_shots
from scripts.readme.examples import ROOT

FILM = ROOT / "samples/sintel-trailer.mp4"
REQUEST = ROOT / "samples/shot.json"
CREDIT = "Frames: Sintel, (c) Blender Foundation, durian.blender.org, CC BY 3.0"

# Seconds: she walks through a dark alley.
ALLEY = Shot(18.5, 21.0)


def main() -> None:
    """Write the file."""
    (shot,) = wire_shots(FILM, [ALLEY])
    REQUEST.write_text(json.dumps(shot.model_dump(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
