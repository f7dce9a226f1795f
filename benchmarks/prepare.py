"""What five frames cost the CPU before the model sees them: `python -m benchmarks.prepare`.

The first row of each table decodes all frames at their full size, measures them there, and then scales the key
frames, as this server did at first. The other is what the server runs. Base64, decoding, measurements and scaling are
counted; the JSON around them is told above each table.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial

import analyzer
from benchmarks import film_frames, rounds
from qwen_shots import media
from qwen_shots.schemas import EXAMPLE_AUDIO, Shot
from serving import wire

# Qwen2-VL's token, and the default of model.max_frame_tokens.
FIT = media.PictureFit(factor=28, max_tokens=256)
SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}
SCENE = "alley"


def body_of(width: int, height: int, quality: int) -> bytes:
    """A request's body with one shot."""
    files = [film_frames.as_jpeg(frame, quality) for frame in film_frames.scene_frames(SCENE, width, height)]
    images = [base64.b64encode(file).decode() for file in files]
    shot = {"shot_id": 1, "images": images, "audio_features": EXAMPLE_AUDIO}
    return json.dumps(shot | {"start_time": 1.0, "end_time": 3.3, "duration": 2.3}).encode()


def _parse(body: bytes) -> Shot:
    return wire.parse_shot(wire.parse_json(body))


def as_served(shot: Shot, fit: media.PictureFit | None) -> analyzer.Decoded:
    """All that the server does with a shot's frames, on one core."""
    decoded = analyzer.decode(shot, fit)
    analyzer.measure_frames(decoded.frames)
    return decoded


def in_full(shot: Shot) -> list[media.Picture]:
    """Decode and measure at the full size, then scale the key frames."""
    key_frames = as_served(shot, None).key_frames
    return [media.fit_picture(frame, factor=FIT.factor, max_tokens=FIT.max_tokens) for frame in key_frames]


def ways_of(shot: Shot) -> dict[str, Callable[[], object]]:
    """Name to what is timed; the first one is the baseline."""
    return {
        "all at full size": lambda: in_full(shot),
        "no larger than needed": lambda: as_served(shot, FIT),
    }


def main(arguments: Sequence[str]) -> int:
    """Print a table for each size and quality; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.prepare", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25, help="how often each way is timed")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--qualities", nargs="+", type=int, default=[85, 90, 95], help="of the JPEGs")
    asked = parser.parse_args(arguments)
    print(f"{rounds.machine()}\nmilliseconds of one core for a shot of five frames; {asked.rounds} rounds in turn")
    for size in asked.sizes:
        for quality in asked.qualities:
            body = body_of(*SIZES[size], quality)
            parse = partial(_parse, body)
            parsing = rounds.time_in_turn({"parse": parse}, rounds=asked.rounds)["parse"]
            print(f"\n{size}, JPEG quality {quality}; {len(body) / 1e6:.1f} MB of JSON, read and checked in", end=" ")
            print(f"{1000 * statistics.median(parsing.seconds):.1f} ms\n")
            print(rounds.table(rounds.time_in_turn(ways_of(parse()), rounds=asked.rounds), milliseconds=True))
    print(f"\nload at the end: {rounds.load()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
