"""Which server, and its key: from the command line or the environment."""

from __future__ import annotations

import argparse
import os

SERVER_VARIABLE = "QWEN_SHOTS_SERVER"
KEY_VARIABLE = "QWEN_SHOTS_KEY"
DEFAULT_SERVER = "http://localhost:8000"


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add --server and --key."""
    parser.add_argument(
        "--server",
        metavar="URL",
        default=os.environ.get(SERVER_VARIABLE, DEFAULT_SERVER),
        help=f"its address; left out, ${SERVER_VARIABLE}, else {DEFAULT_SERVER}",
    )
    # Not as a default, which --help might show.
    parser.add_argument(
        "--key", help=f"its server.api_key; left out, ${KEY_VARIABLE}, which other users of the machine can't see"
    )


def key_of(options: argparse.Namespace) -> str:
    """The key that was given; empty where none was."""
    key: str | None = options.key
    return os.environ.get(KEY_VARIABLE, "") if key is None else key
