"""`qwen-shots similar DIR WORDS...`: the shots whose captions fit some words, or another shot's caption."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qwen_shots.client.cli.exits import OK
from qwen_shots.client.cli.folder import add_folder, read_answers
from qwen_shots.client.cli.listing import print_shots
from qwen_shots.client.cli.messages import tell
from qwen_shots.client.store import ShotRecord
from qwen_shots.client.words import similarity
from qwen_shots.errors import InvalidInput

if TYPE_CHECKING:
    from argparse import _SubParsersAction

TOP = 10


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    text = "the shots whose captions fit some words, or another shot's caption"
    parser = commands.add_parser("similar", help=text, description=text)
    add_folder(parser)
    parser.add_argument("words", metavar="WORD", nargs="*", help="rare words count more than common ones")
    parser.add_argument("--to", metavar="SHOT", type=int, help="take this shot's caption for the words")
    parser.add_argument("--top", metavar="N", type=int, default=TOP, help=f"at most so many; {TOP} by default")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print them, the best first."""
    if options.top < 1:
        raise InvalidInput("the number of shots to show must be at least 1")
    if bool(options.words) == (options.to is not None):
        raise InvalidInput("give either words or --to SHOT")
    answers = read_answers(options.folder)
    shots = [shot for shot in answers.shots if shot.analysed]
    words = " ".join(options.words) if options.words else _caption_of(shots, options.to)
    fits = similarity([shot.caption or "" for shot in shots], words)
    values = {shot.number: fit for shot, fit in zip(shots, fits, strict=True) if fit and shot.number != options.to}
    found = sorted((shot for shot in shots if shot.number in values), key=lambda shot: -values[shot.number])
    if not found:
        tell("no caption fits")
    highest = max(values.values(), default=1.0)
    print_shots(found[: options.top], shots, "fit", values, highest, model=answers.film.model)
    return OK


def _caption_of(shots: Sequence[ShotRecord], number: int) -> str:
    for shot in shots:
        if shot.number == number:
            return shot.caption or ""
    raise InvalidInput("--to: there is no shot of this number that has a caption")
