"""`qwen-shots`: reads the command line and runs a command."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import signal
import sys
from collections.abc import Sequence

from rich.console import Console

from qwen_shots.client.cli import analyze, export, rank, report, server, show, similar
from qwen_shots.client.cli.connection import explained
from qwen_shots.client.cli.exits import OK, STOPPED, exit_code
from qwen_shots.client.cli.messages import log_to, print_error
from qwen_shots.client.cli.version import own_version
from qwen_shots.errors import QwenShotsError

COMMANDS = (analyze, rank, similar, show, export, report, server)

UNKNOWN_SIGNS = "qwen-shots-unknown-signs"

EPILOG = """exit codes: 0 done; 1 some shots failed; 2 the command line or an input is wrong; 3 a film can't be used;
4 the folder of answers can't; 5 the server can't; 130 Ctrl-C"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    options = parser().parse_args(argv)
    told = Console(stderr=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error(UNKNOWN_SIGNS, _written)
        sys.stdout.reconfigure(errors=UNKNOWN_SIGNS)
    log_to(told)
    # What is under way ends as with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        told.print("stopped")
        return STOPPED
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends
        return OK
    except QwenShotsError as error:
        print_error(told, explained(error, options))
        return exit_code(error)
    return code


def _written(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""A sign that the output's encoding lacks: a byte of a file's name goes out as it is, another one as `\u591c`."""
    assert isinstance(error, UnicodeEncodeError)
    one = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    try:
        return codecs.lookup_error("surrogateescape")(one)
    except UnicodeEncodeError:
        return codecs.backslashreplace_errors(one)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    program = argparse.ArgumentParser(
        prog="qwen-shots", description="From a film file to a list of shots that says how each feels.", epilog=EPILOG
    )
    program.add_argument("--version", action="version", version=f"%(prog)s {own_version()}")
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return program


if __name__ == "__main__":
    sys.exit(main())
