"""Exit codes, so that a script knows what went wrong."""

from __future__ import annotations

from qwen_shots.client.errors import FilmError, ServerError, StoreError
from qwen_shots.errors import QwenShotsError

OK = 0
SOME_FAILED = 1
USAGE = 2  # argparse's own; also input that the caller can mend
FILM = 3
STORE = 4
SERVER = 5
STOPPED = 130  # 128 + SIGINT, as shells have it

KINDS = {FilmError: FILM, StoreError: STORE, ServerError: SERVER}


def exit_code(error: QwenShotsError) -> int:
    """The exit code for what stopped a command."""
    return next((code for kind, code in KINDS.items() if isinstance(error, kind)), USAGE)
