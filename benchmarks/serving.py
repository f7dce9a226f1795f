"""The server in a process of its own, and the processor time that it uses. Linux: read from /proc."""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from settings import DEFAULT_API_KEY

ROOT = Path(__file__).parent.parent
BUNDLED = "models/qwen2-vl-film-tiny"
START_SECONDS = 300.0
STOP_SECONDS = 60.0
AUTH = {"Authorization": f"Bearer {DEFAULT_API_KEY}"}
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is healthy.

    Attributes:
        port: on 127.0.0.1.
        pid: its process.
        start_seconds: from its start until it was healthy.
    """

    port: int
    pid: int
    start_seconds: float

    def cpu(self) -> Cpu:
        """What it has used so far."""
        servers = [self.pid, *children(self.pid, "qwen-front")]
        return Cpu(
            server=sum(_cpu_seconds(Path(f"/proc/{pid}/stat")) for pid in servers),
            loop=sum(_cpu_seconds(Path(f"/proc/{pid}/task/{pid}/stat")) for pid in servers),
            engines=sum(_cpu_seconds(Path(f"/proc/{pid}/stat")) for pid in children(self.pid, "qwen-engine")),
        )


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processor seconds.

    Attributes:
        server: of the server's process, and of those that read its requests (`server.http_processes`).
        loop: of the threads in them that run an event loop.
        engines: of the engine processes.
    """

    server: float
    loop: float
    engines: float

    def __sub__(self, earlier: Cpu) -> Cpu:
        return Cpu(self.server - earlier.server, self.loop - earlier.loop, self.engines - earlier.engines)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which engine is behind the server."""
    parser.add_argument("--model", default=BUNDLED, help="a folder or a hub name that is on this disk")
    parser.add_argument("--fixed-cost", type=float, metavar="MS", help="an engine that sleeps so long for each batch")


def program_of(asked: argparse.Namespace) -> list[str]:
    """What Python runs, by those options."""
    return ["server.py"] if asked.fixed_cost is None else ["-m", "benchmarks.fixed_cost", str(asked.fixed_cost)]


@contextmanager
def serving(program: Sequence[str], variables: Mapping[str, str]) -> Iterator[Server]:
    """Start a server on a free port, wait until it is healthy, and stop it at the end.

    Args:
        program: what Python runs: `["server.py"]`.
        variables: settings beside those of the environment.

    Raises:
        RuntimeError: it ended, or did not become healthy; with the last lines that it wrote.
    """
    port = _free_port()
    ours = {
        "QWEN_SERVER__SERVER__HOST": "127.0.0.1",
        "QWEN_SERVER__SERVER__PORT": str(port),
        "QWEN_SERVER__PROCESSING__LEAST_MASS": "0",  # random weights answer with anything
    }
    environment = {**os.environ, **variables, **ours}
    with tempfile.TemporaryFile("w+") as log:
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, *program], cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            while not is_healthy(port):
                if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                    log.seek(0)
                    raise RuntimeError(f"the server did not become healthy:\n{log.read()[-2000:]}")
                time.sleep(0.05)
            yield Server(port, process.pid, time.monotonic() - began)
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def is_healthy(port: int) -> bool:
    """Ask /health once."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _fields(stat: Path) -> list[str]:
    """Those of proc(5) from the third on; the second, a name, may hold spaces."""
    return stat.read_text().rpartition(") ")[2].split()


def _cpu_seconds(stat: Path) -> float:
    fields = _fields(stat)
    return (int(fields[11]) + int(fields[12])) / TICKS


def children(pid: int, name: str) -> list[int]:
    """The processes that this one has started and whose names begin so."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(_fields(stat)[1])
            is_meant = stat.with_name("comm").read_text().startswith(name)
        except OSError:
            continue  # it ended meanwhile
        if parent == pid and is_meant:
            found.append(int(stat.parent.name))
    return found
