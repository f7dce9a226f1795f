"""`qwen-shots show DIR SHOT`: all that is known of one shot."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen_shots.client.cli.exits import OK, SOME_FAILED
from qwen_shots.client.cli.folder import add_folder, read_answers
from qwen_shots.client.cli.listing import at, bar
from qwen_shots.client.exports.cutlist import frame_of, source_start, timebase_of
from qwen_shots.client.exports.text import one_line
from qwen_shots.client.store import FilmRecord, ShotRecord
from qwen_shots.errors import InvalidInput
from qwen_shots.schemas import Evidence

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    text = "all that is known of one shot, with its evidence where `analyze --explain` asked for it"
    parser = commands.add_parser("show", help=text, description=text)
    add_folder(parser)
    parser.add_argument("shot", metavar="SHOT", type=int, help="its number, from 1")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it; a shot that failed is told by the exit code too."""
    answers = read_answers(options.folder)
    shot = next((shot for shot in answers.shots if shot.number == options.shot), None)
    if shot is None:
        raise InvalidInput(f"there is no shot of this number; known are 1 to {len(answers.shots)}")
    console = Console()
    known = Table.grid(padding=(0, 2))
    for name, value in _lines(answers.film, shot):
        known.add_row(Text(name, "bold"), Text(value))
    console.print(known)
    if shot.evidence:
        console.print(_fusion(shot.evidence))
    return SOME_FAILED if shot.failed else OK


def _lines(film: FilmRecord, shot: ShotRecord) -> Iterator[tuple[str, str]]:
    """Names and values."""
    yield "shot", f"{shot.number}{f' ({one_line(shot.name)})' if shot.name else ''} of {one_line(film.path.name)}"
    yield "time", f"{at(shot.start)} to {at(shot.end)}, {shot.duration:.2f} s"
    yield "timecode", _timecodes(film, shot)
    yield "frames", f"{shot.first_frame} to {shot.end_frame - 1}"
    yield "sound", one_line(shot.audio_class or "none")
    yield "answered", f"{shot.answered_at:%Y-%m-%d %H:%M:%S} UTC" if shot.answered_at else "not yet"
    if shot.attempts:
        yield "model", one_line(film.model or "unknown")
    if shot.error:
        yield "failed", f"{one_line(shot.error.title)}: {one_line(shot.error.detail)}"
    if shot.caption is not None:
        yield "caption", one_line(shot.caption)
    for name, score in shot.scores.items():
        yield one_line(name), f"{score:.4f} {bar(score)}"
    if shot.evidence:
        yield from _measured(shot.evidence)


def _timecodes(film: FilmRecord, shot: ShotRecord) -> str:
    base = timebase_of(film)
    first, end = (source_start(film, base) + frame_of(film, seconds, base) for seconds in (shot.start, shot.end))
    return f"{base.text(first)} to {base.text(end)} at {base.named} frames a second"


def _measured(evidence: Evidence) -> Iterator[tuple[str, str]]:
    measured = evidence.measured
    motion = "" if measured.motion is None else f", motion {measured.motion:.4f}"
    yield "measured", f"luminance {measured.luminance:.4f}, darkness {measured.darkness:.4f}{motion}"
    if sound := evidence.audio:
        yield "heard", f"{sound.audio_class}, confidence {sound.confidence:.2f}, loudness {sound.loudness:.2f}"
    yield "key frames", ", ".join(f"{frame.index} (weight {frame.weight:.2f})" for frame in evidence.key_frames)


def _fusion(evidence: Evidence) -> Table:
    """How each score came about: its three parts, and what the model said of each key frame."""
    table = Table("", "picture", "measurement", "sound", "key frames", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, step in evidence.fusion.items():
        readings = "  ".join(f"{reading.value:.3f}±{reading.spread:.3f}" for reading in evidence.readings[name])
        parts = f"{step.visual:.4f}", f"{step.measurement:+.4f}", f"{step.audio:+.4f}"
        table.add_row(Text(one_line(name), "bold"), *parts, readings)
    return table
