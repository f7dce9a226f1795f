"""`qwen-shots rank DIR --by suspense`: the shots that have most of something."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from qwen_shots.client.cli.exits import OK
from qwen_shots.client.cli.folder import add_folder, add_selection, read_answers, wanted_of
from qwen_shots.client.cli.listing import print_shots
from qwen_shots.client.cli.messages import tell
from qwen_shots.client.selection import number_of, select

if TYPE_CHECKING:
    from argparse import _SubParsersAction

TOP = 30


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    text = "the shots that have most of something; tab-separated where no terminal is"
    parser = commands.add_parser("rank", help=text, description=text)
    add_folder(parser)
    parser.add_argument(
        "--by", metavar="NAME", required=True, help="an attribute such as suspense, or shot, start, end, duration"
    )
    add_selection(parser, top=TOP)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print them, the highest first."""
    answers = read_answers(options.folder)
    picked = select(answers.shots, answers.film.duration, wanted_of(options))
    if not picked:
        tell("no shot meets this")
    values = {shot.number: number_of(shot, options.by) for shot in picked}
    is_score = all(options.by in shot.scores for shot in picked)
    highest = 1.0 if is_score else max((value or 0 for value in values.values()), default=1.0)
    print_shots(picked, answers.shots, options.by, values, highest, model=answers.film.model)
    return OK
