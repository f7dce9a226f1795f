"""A film of any length for the benchmarks, made of the two sample clips by ffmpeg: repeated and regraded."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.helpers import ROOT

CLIPS = (ROOT / "samples/big-buck-bunny-30s.mp4", ROOT / "samples/sintel-trailer.mp4")
ROUND_SECONDS = 82.0
WIDTH, HEIGHT = 854, 480

# Hue in degrees, saturation, gamma: each round looks another way.
GRADES = ((0, 1.0, 1.0), (40, 0.8, 1.2), (120, 1.2, 0.9), (200, 0.6, 1.1), (300, 1.1, 1.3), (80, 0.4, 0.95))


def make_film(folder: Path, hours: float) -> Path:
    """Make a film of 480p at 24 pictures a second in H.264, with AAC stereo, and about 13 shots a minute.

    The rounds are joined without encoding them again, so that two hours take little longer than ten minutes.

    Args:
        folder: where to.
        hours: how long, at least.
    """
    count = max(1, round(hours * 3600 / ROUND_SECONDS + 0.5))
    rounds = [_round(folder / f"round-{number}.mp4", *grade) for number, grade in enumerate(GRADES[:count])]
    plan = folder / "plan.txt"
    plan.write_text("".join(f"file '{rounds[number % len(rounds)].name}'\n" for number in range(count)))
    film = folder / "film.mp4"
    _ffmpeg("-f", "concat", "-i", str(plan), "-c", "copy", str(film))
    return film


def _round(path: Path, hue: int, saturation: float, gamma: float) -> Path:
    same = (
        f"scale={WIDTH}:{HEIGHT}:force_original_aspect_ratio=decrease,"
        f"pad={WIDTH}:{HEIGHT}:-1:-1,setsar=1,fps=24,format=yuv420p"
    )
    sound = "aformat=sample_rates=48000:channel_layouts=stereo"
    chains = [f"[{number}:v]{same}[v{number}];[{number}:a]{sound}[a{number}]" for number in range(len(CLIPS))]
    joined = "".join(f"[v{number}][a{number}]" for number in range(len(CLIPS)))
    grade = f"hue=h={hue}:s={saturation},eq=gamma={gamma}"
    graph = ";".join([*chains, f"{joined}concat=n={len(CLIPS)}:v=1:a=1[v][a]", f"[v]{grade}[w]"])
    inputs = [part for clip in CLIPS for part in ("-i", str(clip))]
    coded = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-c:a", "aac", "-b:a", "128k")
    _ffmpeg(*inputs, "-filter_complex", graph, "-map", "[w]", "-map", "[a]", *coded, str(path))
    return path


def _ffmpeg(*arguments: str) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], check=True, stdin=subprocess.DEVNULL)
