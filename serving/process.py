"""The server's process: its port, its signals, its exit code. What it serves is `server.create_app`'s business."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path

from watchfiles import Change, watch

from engines.choice import make_engine
from engines.host import EngineHost
from logs import json_lines, log_to_terminal
from processes import allow_many_files, end_with_parent, keep_hangup_from_the_tracker, stop_signals, usable_cores
from qwen_shots.errors import InvalidSettings
from serving import front
from serving.draining import CreateApp, DrainingServer
from serving.fronts import Fronts
from serving.metrics_sum import add_up
from settings import Settings, config_path, load_settings
from telemetry import Metrics

log = logging.getLogger("qwen_server")

ROOT = Path(__file__).parent.parent

# What `server.reload` watches: the folders with the server's code, and the configuration.
CODE = ("engines", "engines/qwen2vl", "engines/qwen2vl/kernels", "qwen_shots", "serving")
WATCHED_FOLDERS = (ROOT, *(ROOT / folder for folder in CODE))
WATCH_MS = 500

# Names the file in which start_server.sh waits for "listening" or an error. It is gone when nobody waits any more.
REPORT_ENV = "QWEN_SERVER_REPORT"

# Connections that the system keeps until they are accepted; it cuts the number to its own limit.
BACKLOG = 2048

# Where a process reads and decodes for one H100 it keeps three or four cores busy; more than four processes were not
# measured (benchmarks/README.md).
CORES_A_PROCESS = 8
MOST_BY_CORES = 4


def main(create_app: CreateApp) -> int:
    """Run until told to stop.

    Args:
        create_app: builds the app from the settings. With `server.reload` another process calls it, so it must be a
            function of a module.

    Returns:
        The exit code. 0: stopped in order; 1: the model or the port failed; 2: the configuration is wrong.
    """
    log_to_terminal()
    try:
        settings = load_settings()
    except InvalidSettings as error:
        return _failed(error.detail, 2)
    log_to_terminal(settings.server.log_format)
    allow_many_files()
    with json_lines() if settings.server.log_format == "json" else contextlib.nullcontext():
        keep_hangup_from_the_tracker()
        return _run_reloading(create_app) if settings.server.reload else _run(create_app, settings)


def _run(create_app: CreateApp, settings: Settings) -> int:
    serve = _serve_alone if how_many(settings) == 1 else _serve_with_fronts
    try:
        with _bind(settings) as listening:
            log.info("listening on %s:%d", settings.server.host, settings.server.port)
            _report("listening")
            failure = serve(create_app, settings, listening)
    except InvalidSettings as error:
        return _failed(error.detail, 1)
    return _failed(failure, 1) if failure else 0


def _serve_alone(create_app: CreateApp, settings: Settings, listening: socket.socket) -> str | None:
    """Serve until told to stop; returns why the engine can't be used, if that is why it ended."""
    app = create_app(settings)
    app.state.stop_on_failure = True
    DrainingServer(app, settings.server.drain_timeout).run(sockets=[listening])
    failure: str | None = app.state.failure
    return failure


def _serve_with_fronts(create_app: CreateApp, settings: Settings, listening: socket.socket) -> str | None:
    """The same with `server.http_processes`."""
    serve = partial(front.serve, create_app, settings)

    async def run() -> str | None:
        metrics = Metrics()
        engine = make_engine(settings, metrics)
        host = EngineHost(engine, lambda: metrics.text(engine.queue_depth), add_up)
        fronts = Fronts(how_many(settings), serve, engine, host)
        return await fronts.run(listening, settings.server.drain_timeout)

    return asyncio.run(run())


def how_many(settings: Settings) -> int:
    """Processes that read requests; by the cores that this one may use where `server.http_processes` is 0."""
    if settings.server.http_processes:
        return settings.server.http_processes
    return min(MOST_BY_CORES, max(1, usable_cores() // CORES_A_PROCESS))


def _failed(why: str, code: int) -> int:
    print(f"ERROR: {why}", file=sys.stderr)
    _report(f"ERROR: {why}")
    return code


def _report(line: str) -> None:
    """Tell start_server.sh, where it waits: the log is for people and machines, in more than one format."""
    if path := os.environ.get(REPORT_ENV):
        with contextlib.suppress(OSError):
            report = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.write(report, f"{line}\n".encode())
            os.close(report)


def _run_reloading(create_app: CreateApp) -> int:
    """Run the server in a process of its own, and in a new one after each change."""
    stop = threading.Event()
    for each in stop_signals():
        signal.signal(each, lambda *_: stop.set())
    child = _start_child(create_app)
    changed = False
    for changes in watch(
        *{*WATCHED_FOLDERS, config_path().parent},
        watch_filter=_is_watched,
        stop_event=stop,
        yield_on_timeout=True,
        rust_timeout=WATCH_MS,
        recursive=False,
    ):
        if changes:
            log.warning("changed: %s; starting again", ", ".join(sorted({Path(path).name for _, path in changes})))
            changed = True
            _end(child)
            child = _start_child(create_app)
        elif not (changed or child.is_alive()):
            break  # it never ran; later, with a mistake in the code, the next change may mend it
    return _end(child)


def _start_child(create_app: CreateApp) -> SpawnProcess:
    child = multiprocessing.get_context("spawn").Process(target=_serve_as_child, args=(create_app,))
    child.start()
    return child


def _serve_as_child(create_app: CreateApp) -> None:
    log_to_terminal()
    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        settings = load_settings()
        log_to_terminal(settings.server.log_format)
        code = _run(create_app, settings)
    except InvalidSettings as error:
        code = _failed(error.detail, 2)
    sys.exit(code)


def _end(child: SpawnProcess) -> int:
    """Let the child finish its work; returns its exit code."""
    child.terminate()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _is_watched(_: Change, path: str) -> bool:
    return path.endswith(".py") or Path(path).resolve() == config_path().resolve()


def _bind(settings: Settings) -> socket.socket:
    """Take the port before the model is loaded, so that a port in use is told at once."""
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, or asyncio would not turn Nagle's algorithm off: an answer is written in two parts, and
    # the second would wait 40 ms for the client's acknowledgement of the first.
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
        taken.listen(BACKLOG)  # only this makes it ours: two that start at the same moment may both bind
    except OSError as error:
        taken.close()
        raise InvalidSettings(f"can't listen on {host}:{port}: {error.strerror}. {_remedy(error)}") from None
    return taken


def _remedy(error: OSError) -> str:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "Set server.host (QWEN_SERVER__SERVER__HOST) to an address of this machine; 0.0.0.0 is all of them"
    return "Set server.port (QWEN_SERVER__SERVER__PORT) to a free one" + (
        ", 1024 or above" if error.errno == errno.EACCES else ""
    )
