"""The server's process: its port, its signals, its exit code. What it serves is `server.create_app`'s business."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from qwen_shots.errors import InvalidSettings
from settings import Settings, load_settings

# For uvicorn in every mode. No proxy headers: they would let anybody claim to be this machine.
OPTIONS: dict[str, Any] = {"proxy_headers": False, "server_header": False, "access_log": False, "log_config": None}


class DrainingServer(uvicorn.Server):
    """Says on /health that it is draining from the first SIGTERM on."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse new shots, finish those in hand, then stop."""
        self.config.app.state.draining = True  # type: ignore[union-attr]
        # Not uvicorn's own handler: it would raise the signal again at the end, and an orderly stop exits with 0.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def log_to_terminal() -> None:
    """Every line of the log goes to standard error, with its time and level."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")


def main(create_app: Callable[[Settings], FastAPI], reloaded: str) -> int:
    """Run until told to stop.

    Args:
        create_app: builds the app from the settings.
        reloaded: for `server.reload`, where uvicorn finds an app without arguments, as `module:function`.

    Returns:
        The exit code. 0: stopped in order; 1: the model or the port failed; 2: the configuration is wrong.
    """
    log_to_terminal()
    try:
        settings = load_settings()
    except InvalidSettings as error:
        return _failed(error.detail, 2)
    if settings.server.reload:
        return _run_reloading(settings, reloaded)
    app = create_app(settings)
    app.state.stop_on_failure = True
    try:
        with _bind(settings) as listening:
            DrainingServer(uvicorn.Config(app, **OPTIONS)).run(sockets=[listening])
    except InvalidSettings as error:
        return _failed(error.detail, 1)
    return _failed(app.state.failure, 1) if app.state.failure else 0


def _failed(why: str, code: int) -> int:
    print(f"ERROR: {why}", file=sys.stderr)
    return code


def _run_reloading(settings: Settings, reloaded: str) -> int:
    uvicorn.run(
        reloaded,
        factory=True,
        reload=True,
        reload_includes=["*.py", "*.yaml"],
        reload_excludes=[".venv", "tests"],
        host=settings.server.host,
        port=settings.server.port,
        **OPTIONS,
    )
    return 0


def _bind(settings: Settings) -> socket.socket:
    """Take the port before the model is loaded, so that a port in use is told at once."""
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        raise InvalidSettings(
            f"can't listen on {host}:{port}: {error.strerror}. "
            "Set server.port (QWEN_SERVER__SERVER__PORT) to a free one"
        ) from None
    return taken
