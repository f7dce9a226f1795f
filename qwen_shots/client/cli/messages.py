"""What commands say to people, on the standard error; words of a film or a server can't steer the terminal there."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from qwen_shots.client.exports.text import one_line


def print_error(console: Console, lines: Sequence[str]) -> None:
    """Print what is wrong, and what to do about it, each on a line however wide the terminal is."""
    first, *more = map(one_line, lines)
    console.print(Text(f"ERROR: {first}", "red"), soft_wrap=True)
    for line in more:
        console.print(Text(line), soft_wrap=True)


def tell(text: str) -> None:
    """Tell people, and no program that reads the output."""
    Console(stderr=True).print(Text(one_line(text), "yellow"), soft_wrap=True)


def log_to(console: Console) -> None:
    """Print what modules log, from warnings on."""
    handler = RichHandler(console=console, show_time=False, show_path=False)
    handler.addFilter(_as_one_line)
    logging.basicConfig(format="%(message)s", handlers=[handler])


def _as_one_line(record: logging.LogRecord) -> bool:
    record.msg, record.args = one_line(record.getMessage()), None
    return True
