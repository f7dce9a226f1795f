"""A folder of answers, and which of its shots are wanted: from the command line."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qwen_shots.client.cli.messages import tell
from qwen_shots.client.errors import NoStore
from qwen_shots.client.selection import Wanted
from qwen_shots.client.store import FILE_NAME, FilmRecord, ShotRecord, open_store


@dataclass(frozen=True, slots=True)
class StoredFilm:
    """What a folder knows of its film.

    Attributes:
        film: the film.
        shots: those that are known, in order of time.
        complete: whether these are all of its shots.
    """

    film: FilmRecord
    shots: list[ShotRecord]
    complete: bool


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add DIR."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="what `analyze --out` made")


def add_selection(parser: argparse.ArgumentParser, *, top: int | None = None) -> None:
    """Add --top, --where and --until."""
    parser.add_argument(
        "--top", metavar="N", type=int, default=top, help=f"at most so many shots{f'; {top} by default' if top else ''}"
    )
    parser.add_argument(
        "--where", metavar="TEXT", help="only shots that meet it, such as 'motion > 0.5 and audio != \"dialog\"'"
    )
    parser.add_argument(
        "--until", metavar="MOMENT", help="only shots that end by then, for no spoilers: 70%%, 1:02:03 or seconds"
    )


def wanted_of(options: argparse.Namespace) -> Wanted:
    """What was asked for."""
    return Wanted(options.by, options.top, options.where, options.until)


def read_answers(folder: Path) -> StoredFilm:
    """Read a folder; what is missing yet is told.

    Raises:
        NoStore: there is none, or it holds no answer.
    """
    try:
        store = open_store(folder)
    except NoStore as error:
        with suppress(OSError):  # as the error says
            if films := sorted(file.parent.name for file in folder.glob(f"*/{FILE_NAME}")):
                raise NoStore(f"{folder} holds several films; name one: {', '.join(films)}") from None
        raise error from None
    with store:
        answers = StoredFilm(store.film, store.shots(), store.complete)
    analysed = sum(shot.analysed for shot in answers.shots)
    if not any(shot.attempts for shot in answers.shots):
        raise NoStore(f"no shot in {folder} has an answer yet; `qwen-shots analyze` goes on where it stopped")
    if not answers.complete or analysed < len(answers.shots):
        known = f"{len(answers.shots)}{'' if answers.complete else ' found so far'}"
        tell(f"{analysed} of {known} shots are analysed; `qwen-shots analyze` goes on, --retry-failed tries again")
    return answers
