"""`qwen-shots export DIR FILE...`: the film's shots, or a selection of them, for other programs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from qwen_shots.client.cli.exits import OK
from qwen_shots.client.cli.files import write_whole
from qwen_shots.client.cli.folder import StoredFilm, add_folder, add_selection, read_answers, wanted_of
from qwen_shots.client.cli.messages import tell
from qwen_shots.client.exports.cutlist import SELECTION_START, CutList, film_cuts, selected_cuts, timebase_of
from qwen_shots.client.exports.edl import MAX_EVENTS, to_edls
from qwen_shots.client.exports.fcpxml import to_fcpxml
from qwen_shots.client.exports.otio import to_otio
from qwen_shots.client.exports.tables import to_csv, to_jsonl, to_parquet
from qwen_shots.client.exports.webvtt import to_webvtt
from qwen_shots.client.selection import Wanted, select
from qwen_shots.client.store import ShotRecord
from qwen_shots.errors import InvalidInput

if TYPE_CHECKING:
    from argparse import _SubParsersAction

STDOUT = Path("-")


@dataclass(frozen=True, slots=True)
class Export:
    """What is written.

    Attributes:
        shots: the rows of a table.
        film: all shots of the film, whose attributes are the columns.
        model: as `FilmRecord.model`.
        cuts: the same as a timeline.
    """

    shots: Sequence[ShotRecord]
    film: Sequence[ShotRecord]
    model: str | None
    cuts: CutList


Writer: TypeAlias = Callable[[Export], Sequence[bytes]]
"""What goes into one file, or into several of them."""

WRITERS: dict[str, Writer] = {
    ".csv": lambda export: [to_csv(export.shots, export.film, export.model).encode()],
    ".jsonl": lambda export: [to_jsonl(export.shots, export.model).encode()],
    ".parquet": lambda export: [to_parquet(export.shots, export.film, export.model)],
    ".vtt": lambda export: [to_webvtt(export.shots, export.model).encode()],
    ".edl": lambda export: [text.encode() for text in to_edls(export.cuts)],
    ".otio": lambda export: [to_otio(export.cuts).encode()],
    ".fcpxml": lambda export: [to_fcpxml(export.cuts).encode()],
}


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    text = "write the film's shots, or with --by, --top, --where or --until a selection, for other programs"
    parser = commands.add_parser("export", help=text, description=text)
    add_folder(parser)
    endings = ", ".join(WRITERS)
    parser.add_argument(
        "files",
        metavar="FILE",
        type=Path,
        nargs="*",
        default=[],
        help=f"its ending says what it becomes: {endings}; - is standard output",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, action="append", default=[], help="another FILE, as an option"
    )
    parser.add_argument(
        "--format",
        choices=[ending[1:] for ending in WRITERS],
        default="csv",
        help="what goes to standard output (default: csv)",
    )
    parser.add_argument("--by", metavar="NAME", help="a selection, the highest of this attribute first")
    add_selection(parser)
    parser.add_argument(
        "--start",
        metavar="TIMECODE",
        help=f"the timeline's; left out, the film's own, and {SELECTION_START} for a selection",
    )
    parser.add_argument(
        "--drop-frame",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="how timecodes count at 29.97, 30, 59.94 and 60 frames a second; left out, as the film's own do",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write all files, and their names to standard output where no file goes there."""
    files = [*options.files, *options.out]
    if not files:
        raise InvalidInput("no FILE is named; - writes to standard output")
    writers = [_writer(file, options.format) for file in files]
    export = _export(read_answers(options.folder), options)
    if not export.shots:
        tell("no shot meets this")
    for file, writer in zip(files, writers, strict=True):
        contents = writer(export)
        if file == STDOUT:
            _write_stdout(contents)
            continue
        for each, content in zip(_names(file, len(contents)), contents, strict=True):
            write_whole(each, content)
            if STDOUT not in files:
                print(each)
    return OK


def _write_stdout(contents: Sequence[bytes]) -> None:
    if len(contents) > 1:
        raise InvalidInput(f"this goes into {len(contents)} files of {MAX_EVENTS} shots each; name a file and not -")
    sys.stdout.buffer.write(contents[0])
    sys.stdout.buffer.flush()


def _writer(file: Path, stdout_format: str) -> Writer:
    if file == STDOUT:
        return WRITERS[f".{stdout_format}"]
    if writer := WRITERS.get(file.suffix.lower()):
        return writer
    raise InvalidInput(f"{file.name} ends in none of {', '.join(WRITERS)}")


def _export(answers: StoredFilm, options: argparse.Namespace) -> Export:
    base = timebase_of(answers.film, drop=options.drop_frame)
    wanted = wanted_of(options)
    if wanted == Wanted():
        return Export(
            answers.shots,
            answers.shots,
            answers.film.model,
            film_cuts(answers.film, answers.shots, base, options.start),
        )
    picked = select(answers.shots, answers.film.duration, wanted)
    cuts = selected_cuts(answers.film, picked, base, options.start or SELECTION_START)
    return Export(picked, answers.shots, answers.film.model, cuts)


def _names(file: Path, count: int) -> list[Path]:
    """`cut.edl`, or `cut-1.edl` and so on."""
    if count == 1:
        return [file]
    return [file.with_stem(f"{file.stem}-{number}") for number in range(1, count + 1)]
