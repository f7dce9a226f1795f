"""`qwen-shots report DIR`: one HTML file about the film, that opens with no internet."""

from __future__ import annotations

import argparse
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from qwen_shots.client.cli.exits import OK
from qwen_shots.client.cli.files import write_whole
from qwen_shots.client.cli.folder import add_folder, read_answers
from qwen_shots.client.cli.version import own_version
from qwen_shots.client.report.page import Report, to_html
from qwen_shots.errors import InvalidInput

if TYPE_CHECKING:
    from argparse import _SubParsersAction

FILE_NAME = "report.html"
SCHEMES = ("", "file", "http", "https")


def add_to(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    text = "make one HTML file about the film that opens with no internet: timeline, best shots, all shots"
    parser = commands.add_parser("report", help=text, description=text)
    add_folder(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, help=f"left out, DIR/{FILE_NAME}")
    parser.add_argument(
        "--film", metavar="ADDRESS", help="where its readers find the film, for links; left out, where it was analysed"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write it."""
    answers = read_answers(options.folder)
    made = f"Made by qwen-shots {own_version()}, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC."
    address = _address(options.film) if options.film else answers.film.path.absolute().as_uri()
    file = options.out or options.folder / FILE_NAME
    page = to_html(Report(answers.film, answers.shots, answers.complete, address, made))
    write_whole(file, page.encode())
    print(file)
    return OK


def _address(text: str) -> str:
    """A link, and nothing that a browser would run."""
    with suppress(ValueError):  # it is no address at all
        if urlsplit(text).scheme.lower() in SCHEMES:
            return text
    raise InvalidInput("--film is an http, https or file address, or a path from the report's folder")
