"""Frames of real film stills in the sizes that film tools send, as JPEG files.

The stills in `samples/frames` are 480 pixels wide. Enlarged alone they would be softer than a camera's frames and their
files smaller, so grain is added: at quality 90 a 720p frame has some 200 kB.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

STILLS = Path(__file__).parent.parent / "samples" / "frames"
SCENES = ("alley", "dragon", "dunes", "face", "fight", "firelight", "ruins", "snow")
SEEN = (1, 1, 2, 2, 3)  # which still of a scene each of the five frames shows
PAN = 0.01  # picture widths from frame to frame
GRAIN = 3.0  # of 255, standard deviation of luma


def scene_frames(scene: str, width: int = 1280, height: int = 720, grain: float = GRAIN) -> list[Image.Image]:
    """Five frames of a slow pan over a scene.

    Args:
        scene: one of `SCENES`.
        width: pixels.
        height: pixels.
        grain: of 255; 0 leaves the frames soft.
    """
    random = np.random.default_rng(SCENES.index(scene))
    frames = []
    for number, still in enumerate(SEEN):
        with Image.open(STILLS / f"{scene}-{still}.jpg") as image:
            seen_height = image.height * 0.9
            seen_width = seen_height * width / height
            left = (image.width - seen_width) / 2 + (number - 2) * PAN * seen_width
            top = (image.height - seen_height) / 2
            box = (left, top, left + seen_width, top + seen_height)
            large = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS, box=box)
        noise = random.normal(0, grain, (height, width, 1)).astype(np.float32)
        frames.append(Image.fromarray((np.asarray(large) + noise).clip(0, 255).astype(np.uint8)))
    return frames


def as_jpeg(frame: Image.Image, quality: int = 90) -> bytes:
    """One frame as a file."""
    file = io.BytesIO()
    frame.save(file, "JPEG", quality=quality)
    return file.getvalue()
