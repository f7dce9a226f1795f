"""`qwen-shots analyze FILM...`: from films to answers in a folder."""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from qwen_shots.client.analysis import FilmRun
from qwen_shots.client.api import ShotClient
from qwen_shots.client.cli.connection import add_connection, connect
from qwen_shots.client.cli.exits import OK, SOME_FAILED, exit_code
from qwen_shots.client.cli.messages import print_error
from qwen_shots.client.cli.pace import Pace, PaceColumn
from qwen_shots.client.errors import FilmError
from qwen_shots.client.exports.text import one_line
from qwen_shots.client.shot_lists import read_shot_list
from qwen_shots.client.shots import DEFAULT_DETECTOR, DETECTORS
from qwen_shots.client.store import ShotRecord
from qwen_shots.errors import InvalidInput

if TYPE_CHECKING:
    from argparse import _SubParsersAction

# Where no terminal is, a line now and then says how far it is.
LINE_SECONDS = 30.0
MAX_LISTED = 50


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    text = "find a film's shots, ask a server about each, and store the answers; again to go on where it stopped"
    parser = commands.add_parser("analyze", help=text, description=text)
    parser.add_argument("films", metavar="FILM", type=Path, nargs="+", help="a film file")
    add_connection(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="where the answers go, of several films to DIR/NAME each; left out, a folder here with the film's name",
    )
    parser.add_argument(
        "--detector",
        choices=DETECTORS,
        help=f"what finds the shots; left out, what found those of DIR, else {DEFAULT_DETECTOR}",
    )
    parser.add_argument(
        "--shots",
        metavar="FILE",
        type=Path,
        help="take the shots of this list instead: CSV with the columns start and end, EDL (CMX 3600) or OTIO",
    )
    parser.add_argument("--explain", action="store_true", help="store the evidence of each score too")
    more = parser.add_mutually_exclusive_group()
    more.add_argument("--retry-failed", action="store_true", help="try the shots again that failed, and only those")
    more.add_argument("--again", action="store_true", help="ask about all shots anew, as another model needs it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Analyse all films. The exit code is that of the first one that did not go well."""
    told = Console(stderr=True)
    # The features' matrices are small: a second thread of BLAS only spins beside them, on a core that others need.
    with (
        threadpool_limits(1, user_api="blas"),
        connect(options, sleep=Patience(told).sleep) as client,
    ):
        folders = _folders(options.films, options.out, listed=options.shots is not None)
        codes = [_analyze(told, client, film, folder, options) for film, folder in folders.items()]
    return next((code for code in codes if code != OK), OK)


def _folders(films: Sequence[Path], out: Path | None, *, listed: bool) -> dict[Path, Path]:
    """Each film's folder."""
    if len(films) == 1 and out:
        return {films[0]: out}
    if listed and len(films) > 1:
        raise InvalidInput("--shots is of one film; analyse the films one by one")
    twins = [name for name, count in Counter(film.stem for film in films).items() if count > 1]
    if twins:
        raise InvalidInput(f"two films are named {twins[0]}; analyse them one by one, each with an --out of its own")
    return {film: (out or Path()) / _folder_name(film) for film in films}


def _folder_name(film: Path) -> str:
    """The film's name without its ending; the film itself may lie there under a name without one."""
    return film.stem if film.suffix else f"{film.name}.shots"


class Patience:
    """Waits for a busy server, and says so once, however many requests wait at the same time."""

    def __init__(self, told: Console) -> None:
        self._told = told
        self._told_until = 0.0
        self._turn = threading.Lock()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        with self._turn:
            now = time.monotonic()
            if now >= self._told_until:
                self._told.print(Text(f"the server is busy or away; asking again in {seconds:.0f} s", "yellow"))
                self._told_until = now + seconds
        time.sleep(seconds)


def _analyze(told: Console, client: ShotClient, film: Path, folder: Path, options: argparse.Namespace) -> int:
    try:
        with FilmRun(
            film,
            client,
            folder,
            detector=options.detector,
            shots=read_shot_list(options.shots, film) if options.shots else None,
            explain=options.explain,
            retry_failed=options.retry_failed,
            again=options.again,
        ) as work:
            _follow(told, film, work)
            return _summary(told, film, folder, work.store.shots())
    except FilmError as error:  # the next film may be good
        print_error(told, [error.detail])
        return exit_code(error)


def _follow(told: Console, film: Path, work: FilmRun) -> None:
    """Analyse what is missing, with a bar on a terminal and a line now and then elsewhere."""
    pace = Pace(work)
    last_line = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), PaceColumn(pace))
    with Progress(*columns, console=told, disable=not told.is_terminal, transient=True) as bar:
        name = escape(one_line(film.name))
        task = bar.add_task(name, total=None)
        for numbers in work.answers():
            pace.done += len(numbers)
            bar.update(task, completed=pace.done, total=pace.total)
            if not told.is_terminal and time.monotonic() - last_line > LINE_SECONDS:
                told.print(f"{name}: {pace.text()}")
                last_line = time.monotonic()


def _summary(told: Console, film: Path, folder: Path, shots: Sequence[ShotRecord]) -> int:
    failed = [shot for shot in shots if shot.failed]
    analysed = f"{sum(shot.analysed for shot in shots)} of {len(shots)} shots analysed"
    told.print(Text(one_line(f"{film.name}: {analysed}, in {folder}")), soft_wrap=True)
    for shot in failed[:MAX_LISTED]:
        assert shot.error is not None
        reason = one_line(f"{shot.error.title}: {shot.error.detail}")
        told.print(Text(f"  shot {shot.number} failed: {reason}", "red"))
    if len(failed) > MAX_LISTED:
        told.print(f"  and {len(failed) - MAX_LISTED} more")
    if failed:
        told.print("  --retry-failed tries these again")
    return SOME_FAILED if failed else OK
