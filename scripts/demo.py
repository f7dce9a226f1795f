"""`make demo`: a film's shots, with a caption and scores each, from a server of its own that is stopped again.

The server listens on this machine alone, on a free port, so that one that runs already is not disturbed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn, TypeVar

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from qwen_shots import schemas
from qwen_shots.client.ahead import Ahead
from qwen_shots.client.api import Answer, ShotClient
from qwen_shots.client.errors import Unreachable
from qwen_shots.client.shots import Shot, find_shots
from qwen_shots.client.wire import wire_shots
from qwen_shots.errors import QwenShotsError
from settings import ENV_PREFIX, Settings, load_settings, local_address

Result = TypeVar("Result")

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "samples/sintel-trailer.mp4"
SAMPLE_CREDIT = "Sintel, (c) Blender Foundation, durian.blender.org, CC BY 3.0"

POLL_SECONDS = 0.1
STOP_SECONDS = 30.0
LOG_LINES = 15

PIPE_WIDTH = 120  # columns, where the output is no terminal and has none
WIDE = 110  # from here on, the attributes' names have room
SHORT_NAME = 4  # letters of them in a narrower terminal


class DemoFailed(QwenShotsError):
    """The demo can't go on."""

    slug = "demo"
    title = "The demo failed"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo. 0: every shot was analysed; 1: some were not, or it failed; 130: Ctrl-C."""
    options = _parse(argv)
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _end)
    try:
        return _run(console, options.film, options.model, options.port)
    except SystemExit as end:
        console.print("stopped")
        sys.stdout.flush()
        os._exit(int(end.code or 0))  # Python's own end may trip over a thread that is in the middle of a film
    except QwenShotsError as error:
        console.print(Text(f"ERROR: {error.detail}", "red"))
        return 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.demo", description=__doc__)
    parser.add_argument("film", type=Path, nargs="?", default=SAMPLE, help="a film file; left out, the bundled clip")
    parser.add_argument("--model", help="a hub name on this disk, or a folder; left out, the bundled small model")
    parser.add_argument("--port", type=int, default=0, help="left out, a free one")
    return parser.parse_args(argv)


def _end(number: int, _: object) -> NoReturn:
    """Leave by way of all `finally`, which stop the server.

    Not by KeyboardInterrupt: where that passes through code that a library runs from a string, Python kills itself in
    the end, whatever exit code was chosen.
    """
    sys.exit(128 + number)


def _run(console: Console, film: Path, model: str | None, port: int) -> int:
    bundled = _bundled_model()
    environ = _environment(model or bundled, _claimed(port))
    settings = load_settings(environ=environ)
    _introduce(console, film, settings, small=settings.model.name == bundled)
    with _server(environ) as (server, log):
        console.print("starting a server and finding the shots")
        shots = _find_shots(console, film, server, log)
        with ShotClient(
            local_address(settings), settings.server.keys[0], batch_size=settings.processing.max_batch_size
        ) as client:
            health = _wait_until_healthy(client, server, log)
            console.print(f"the server is healthy (device: {health.device}); looking at {len(shots)} shots")
            began = time.monotonic()
            answers = _analyze(console, client, film, shots)
        console.print(f"{len(shots)} shots in {time.monotonic() - began:.1f} s")
        console.print(_table(shots, answers, list(settings.attributes), wide=console.width >= WIDE))
        console.print("stopping the server")
    return 0 if all(isinstance(answer, schemas.Analysis) for answer in answers) else 1


def _introduce(console: Console, film: Path, settings: Settings, *, small: bool) -> None:
    shown = film.relative_to(ROOT) if film == SAMPLE else film
    console.print(Text.assemble(("film   ", "bold"), str(shown), f"  ({SAMPLE_CREDIT})" if film == SAMPLE else ""))
    console.print(Text.assemble(("model  ", "bold"), settings.model.name))
    if small:
        note = "The answers below come from the small demo model that is bundled, not from Qwen's own weights: they"
        console.print(Text(f"{note} show that everything works, not how well.", "yellow"))


# --- the server ------------------------------------------------------------------------------------------------------


def _bundled_model() -> str:
    """The bundled checkpoint's folder, from the one place where the scripts name it."""
    found = re.search(r"^BUNDLED_MODEL=(\S+)$", (ROOT / "scripts/server_process.sh").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def _claimed(port: int) -> int:
    """A port that nobody listens on; `port` itself unless it is 0."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise DemoFailed(f"port {port} can't be used ({error}); leave --port out to take a free one") from None
        claimed: int = taken.getsockname()[1]
        return claimed


def _environment(model: str, port: int) -> dict[str, str]:
    ours = {
        "MODEL__NAME": model,
        "MODEL__ENGINE": "local",
        "SERVER__HOST": "127.0.0.1",
        "SERVER__PORT": str(port),
        "SERVER__RELOAD": "false",
    }
    return {**os.environ, **{ENV_PREFIX + name: value for name, value in ours.items()}}


@contextmanager
def _server(environ: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A server process and its log; ended, with all its children, however the block is left."""
    with tempfile.TemporaryFile() as log:
        # A session of its own: Ctrl-C reaches this script alone, which then stops the server in order.
        server = subprocess.Popen(
            [sys.executable, "server.py"],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield server, log
        finally:
            _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    try:
        server.terminate()
        server.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, SystemExit):
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_until_healthy(client: ShotClient, server: subprocess.Popen[bytes], log: IO[bytes]) -> schemas.Health:
    while True:
        _check_alive(server, log)
        try:
            health = client.health()
        except Unreachable:
            health = None
        if health and health.status == "healthy":
            return health
        time.sleep(POLL_SECONDS)


def _check_alive(server: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    if server.poll() is None:
        return
    log.seek(0)
    last_words = "\n".join(log.read().decode(errors="replace").splitlines()[-LOG_LINES:])
    raise DemoFailed(f"the server ended with exit code {server.returncode}. It said:\n{last_words}")


# --- the shots -------------------------------------------------------------------------------------------------------


def _find_shots(console: Console, film: Path, server: subprocess.Popen[bytes], log: IO[bytes]) -> list[Shot]:
    """The film's shots, found while the server loads its model; not to the end where it can't."""
    with console.status("reading the film") as status:

        def show(seconds: float) -> None:
            status.update(f"reading the film: {_clock(seconds)}")
            _check_alive(server, log)

        return _aside(lambda: find_shots(film, show))


def _aside(work: Callable[[], Result]) -> Result:
    """Do it on a thread, and wait.

    A signal then finds the main thread waiting. In the middle of an import or of a library's callback, Python loses
    what the signal's handler raises, and goes on.
    """
    with Ahead([(work() for _ in range(1))], 1) as doing:
        return next(doing)


def _analyze(console: Console, client: ShotClient, film: Path, shots: Sequence[Shot]) -> list[Answer]:
    # The first time on a machine, librosa is compiled.
    told = "looking (a minute more the first time)"
    quiet = not console.is_terminal
    with Ahead([client.analyze(wire_shots(film, shots))], len(shots)) as answers:  # on a thread, as `_aside` says
        return list(track(answers, told, total=len(shots), console=console, transient=True, disable=quiet))


def _table(shots: Sequence[Shot], answers: Sequence[Answer], attributes: Sequence[str], *, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("from", justify="right")
    table.add_column("to", justify="right")
    table.add_column("caption", ratio=1, overflow="fold")
    for name in attributes:
        table.add_column(name.replace("_", "\n") if wide else name[:SHORT_NAME], justify="right")
    for shot, answer in zip(shots, answers, strict=True):
        table.add_row(str(answer.shot_id), _clock(shot.start), _clock(shot.end), *_cells(answer, attributes))
    return table


def _cells(answer: Answer, attributes: Sequence[str]) -> list[Text]:
    if isinstance(answer, schemas.Analysis):
        scores = [answer.attributes[name] for name in attributes]
        return [Text(answer.caption), *(Text(f"{score:.2f}", _style(score)) for score in scores)]
    return [Text(f"{answer.title}: {answer.detail}", "red"), *(Text("-") for _ in attributes)]


def _style(score: float) -> str:
    """High scores stand out, low ones step back."""
    return "bold" if score >= 2 / 3 else "dim" if score < 1 / 3 else ""


def _clock(seconds: float) -> str:
    """1:02:03.4, without the hours where there are none."""
    tenths = round(seconds * 10)
    hours, minutes, rest = tenths // 36_000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


if __name__ == "__main__":
    sys.exit(main())
