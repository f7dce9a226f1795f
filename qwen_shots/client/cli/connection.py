"""The server and its key, from the command line or the environment; and what to do when it does not answer."""

from __future__ import annotations

import argparse
from typing import Any

from qwen_shots.client.api import DEFAULT_SERVER, KEY_VARIABLE, SERVER_VARIABLE, ShotClient, key_of, server_of
from qwen_shots.client.errors import ModelChanged, OtherModel, Unauthorized, Unreachable
from qwen_shots.errors import QwenShotsError

START = (
    "start one with ./start_server.sh in the server's folder (--demo: without a download), "
    f"or name another with --server URL or {SERVER_VARIABLE}"
)
NO_KEY = f"the server wants a key: give what its setting server.api_key holds with --key KEY or in {KEY_VARIABLE}"
WRONG_KEY = (
    f"the server does not take this key: --key or {KEY_VARIABLE} must hold what its setting server.api_key holds "
    "(the default key works from the server's machine only)"
)
AGAIN = "`analyze --again` asks about all shots anew; another --out keeps both"


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add --server and --key. The environment is no default of theirs, which --help might show."""
    parser.add_argument(
        "--server", metavar="URL", help=f"its address; left out, ${SERVER_VARIABLE}, else {DEFAULT_SERVER}"
    )
    parser.add_argument(
        "--key", help=f"its server.api_key; left out, ${KEY_VARIABLE}, which other users of the machine can't see"
    )


def connect(options: argparse.Namespace, **changes: Any) -> ShotClient:
    """Make a client of the server that the options or the environment name.

    Raises:
        InvalidInput: the address or the key can't be one.
    """
    return ShotClient(server_of(options.server), key_of(options.key), **changes)


def explained(error: QwenShotsError, options: argparse.Namespace) -> list[str]:
    """Describe an error to the person who runs a command, in a line or two: what is wrong, and what to do about it."""
    match error:
        case Unreachable():
            return [error.detail, START]
        case Unauthorized():
            return [WRONG_KEY if key_of(options.key) else NO_KEY]
        case OtherModel() | ModelChanged():
            return [error.detail, AGAIN]
        case _:
            return [error.detail]
