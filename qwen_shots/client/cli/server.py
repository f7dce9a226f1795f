"""`qwen-shots server ping|status|try`: whether a server is there, how it is, and how fast it answers."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from qwen_shots import schemas
from qwen_shots.client.api import Answer, ShotClient
from qwen_shots.client.cli.connection import add_connection, connect
from qwen_shots.client.cli.exits import OK, SERVER
from qwen_shots.client.exports.text import one_line
from qwen_shots.client.frames import stills_of
from qwen_shots.client.shots import Shot, find_borders
from qwen_shots.client.sound import features_of
from qwen_shots.client.wire import wire_shot
from qwen_shots.example import EXAMPLE_CREDIT, example_shot

if TYPE_CHECKING:
    from argparse import _SubParsersAction

PINGS = 4
TRIES = 3  # the first one may wait for a server that has not answered yet


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    text = "whether a server is there, how it is, and how fast it answers"
    kinds = commands.add_parser("server", help=text, description=text).add_subparsers(required=True, metavar="WHAT")
    _add(kinds, "ping", ping, "ask whether it is there, a few times")
    _add(kinds, "status", status, "tell its model and device, and whether it could take a shot now")
    tried = _add(kinds, "try", try_shot, "let it analyse one shot, with timings")
    tried.add_argument(
        "film", metavar="FILM", type=Path, nargs="?", help="takes its first shot; without it, a bundled one"
    )


def _add(
    kinds: _SubParsersAction[argparse.ArgumentParser], name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser = kinds.add_parser(name, help=text, description=text)
    add_connection(parser)
    parser.set_defaults(run=run)
    return parser


def ping(options: argparse.Namespace) -> int:
    """How long an answer takes that costs nothing."""
    console = Console()
    with _client(options) as client:
        for _ in range(PINGS):
            began = time.perf_counter()
            health = client.health()
            console.print(Text(one_line(f"{client.address}: {health.status}, {_milliseconds(began)}")), soft_wrap=True)
    return OK if health.status == "healthy" else SERVER


def status(options: argparse.Namespace) -> int:
    """What the server says of itself."""
    with _client(options) as client:
        health = client.health()
    console = Console()
    for name, value in {**health.model_dump(), "X-Model": client.model}.items():
        shown = "-" if value is None else one_line(str(value))
        console.print(Text.assemble((f"{name.replace('_', ' '):18}", "bold"), shown), soft_wrap=True)
    return OK if health.status == "healthy" else SERVER


def try_shot(options: argparse.Namespace) -> int:
    """One shot, with the time that each step takes."""
    console = Console()
    began = time.perf_counter()
    shot = _first_shot(options.film) if options.film else example_shot()
    size = len(shot.model_dump_json())
    console.print(f"made a shot of {len(shot.images)} frames, {size / 1024:.0f} KiB: {_milliseconds(began)}")
    if not options.film:
        console.print(f"frames: {EXAMPLE_CREDIT}")
    with _client(options) as client:
        for number in range(1, TRIES + 1):
            began = time.perf_counter()
            (answer,) = client.analyze_batch([shot])
            console.print(f"answer {number}: {_milliseconds(began)}")
    console.print(Text(one_line(f"model: {client.model or 'not named'}")), soft_wrap=True)
    return _show(console, answer)


def _show(console: Console, answer: Answer) -> int:
    if not isinstance(answer, schemas.Analysis):
        console.print(Text(one_line(f"{answer.title}: {answer.detail}"), "red"))
        return SERVER
    console.print(Text(one_line(answer.caption)))
    for name, score in answer.attributes.items():
        console.print(Text.assemble((f"{one_line(name):18}", "bold"), f"{score:.4f}"))
    return OK


def _client(options: argparse.Namespace) -> ShotClient:
    """Without patience: somebody wants to know now."""
    return connect(options, retries=0)


def _first_shot(film: Path) -> schemas.Shot:
    first, second = islice(find_borders(film), 2)  # reads no farther than the first cut
    shot = Shot(first.time, second.time)
    return wire_shot(1, shot, next(stills_of(film, [shot])), next(features_of(film, [shot])))


def _milliseconds(began: float) -> str:
    return f"{(time.perf_counter() - began) * 1000:.0f} ms"
