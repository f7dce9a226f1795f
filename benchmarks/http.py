"""The whole server over HTTP, from base64 JPEG to JSON: `python -m benchmarks.http --shots 1000 --model FOLDER`.

The server runs in a process of its own, started as users start it. A film of shots, each of five 720p JPEG frames and
audio features, is sent in batches of 10 from 8 connections and from 48, then in batches of 1 from 80, then one shot
alone again and again; meanwhile another process asks /health ten times a second. A film begins and ends with nothing to
do for somebody, so its rate is also told in between, where all connections have work: a long film has more of that.
`--fixed-cost MS` puts an engine of that cost a batch behind the real server, so that the server's own limit is seen.
Other settings: variables, as in config.yaml.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import importlib.util
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import film_frames
from benchmarks.serving import AUTH, Cpu, Server, add_options, program_of, serving
from qwen_shots.schemas import EXAMPLE_AUDIO
from serving.process import how_many
from settings import load_settings

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

# With 480 shots in hand every batch of the engine's is a full one.
BATCH, BATCH_CONNECTIONS, MORE_CONNECTIONS = 10, 8, 48
ONES_CONNECTIONS = 80
ALONE = 50
HEALTH_SECONDS = 0.1
IDLE_SECONDS = 5.0
TIMEOUT = 600.0
LEAST_POINTS = 10  # answers that a rate is told from
JSON = {**AUTH, "Content-Type": "application/json"}

Body = list[bytes]
"""A request's body in parts, so that shots are not copied for each request that they stand in."""


@dataclass(frozen=True, slots=True)
class Round:
    """One way of sending shots.

    Attributes:
        seconds: from the first request to the last answer.
        shots: how many were answered.
        rate: shots a second while all connections have work; NaN where the film is too short for it.
        requests: seconds of each request.
        health: seconds of each question to /health meanwhile.
        cpu: what the server used.
    """

    seconds: float
    shots: int
    rate: float
    requests: Sequence[float]
    health: Sequence[float]
    cpu: Cpu


@dataclass(frozen=True, slots=True)
class Sent:
    """A request.

    Attributes:
        began: when it was sent, in seconds.
        ended: when its answer was there.
        shots: that were answered.
    """

    began: float
    ended: float
    shots: int

    @property
    def seconds(self) -> float:
        """What it took."""
        return self.ended - self.began


@dataclass(slots=True)
class Health:
    """How long /health took, as another process sees it."""

    seconds: list[float] = field(default_factory=list)


def encode_shots() -> list[bytes]:
    """Some shots as JSON, each without its first member, the shot's name."""
    shots = []
    for scene in film_frames.SCENES:
        images = [base64.b64encode(film_frames.as_jpeg(frame)).decode() for frame in film_frames.scene_frames(scene)]
        shot = {"images": images, "audio_features": EXAMPLE_AUDIO, "start_time": 1.0, "end_time": 3.3, "duration": 2.3}
        shots.append(json.dumps(shot).encode()[1:])
    return shots


def single(number: int, shots: Sequence[bytes]) -> Body:
    """The body of one shot."""
    return [b'{"shot_id": %d, ' % number, shots[number % len(shots)]]


def batch(numbers: Sequence[int], shots: Sequence[bytes]) -> Body:
    """The body of several."""
    inside = [part for number in numbers for part in (b", ", *single(number, shots))]
    return [b'{"shots": [', *inside[1:], b"]}"]


def send(connection: http.client.HTTPConnection, path: str, body: Body, more: Mapping[str, str] | None = None) -> Sent:
    """Send one request, with more headers.

    Raises:
        RuntimeError: not every shot of it was.
    """
    headers = {**JSON, "Content-Length": str(sum(map(len, body))), **(more or {})}
    began = time.perf_counter()
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    text = response.read()
    ended = time.perf_counter()
    answer = json.loads(text)
    if response.status != http.HTTPStatus.OK or answer.get("errors"):
        raise RuntimeError(f"{path} answered {response.status}: {text[:1000].decode()}")
    return Sent(began, ended, len(answer.get("results", [answer])))


def send_all(server: Server, path: str, bodies: Sequence[Body], connections: int) -> Round:
    """Send bodies from several connections, each sending on as soon as it has its answer."""
    left = iter(bodies)
    lock = threading.Lock()

    def one_connection(_: int) -> list[Sent]:
        done: list[Sent] = []
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
        while True:
            with lock:
                body = next(left, None)
            if body is None:
                connection.close()
                return done
            done.append(send(connection, path, body))

    with watched_health(server.port) as health, ThreadPoolExecutor(connections) as pool:
        used, began = server.cpu(), time.perf_counter()
        sent = list(itertools.chain.from_iterable(pool.map(one_connection, range(connections))))
        seconds, used = time.perf_counter() - began, server.cpu() - used
    shots, requests = sum(one.shots for one in sent), [one.seconds for one in sent]
    return Round(seconds, shots, rate_between(sent, connections), requests, health.seconds, used)


def rate_between(sent: Sequence[Sent], connections: int) -> float:
    """Shots a second from when as many requests are answered as there are connections until the last one is sent.

    Answers come in bursts, a batch of the engine's at a time, so it is the slope of a line through all of them.
    """
    answered = sorted((one.ended, one.shots) for one in sent)[connections - 1 :]
    last_sent = max(one.began for one in sent)
    counted = itertools.accumulate(shots for _, shots in answered)
    points = [(ended, count) for (ended, _), count in zip(answered, counted, strict=True) if ended <= last_sent]
    if len(points) < LEAST_POINTS:
        return float("nan")
    return statistics.linear_regression(*zip(*points, strict=True)).slope


@contextmanager
def watched_health(port: int) -> Iterator[Health]:
    """Ask /health from another process until the block ends; the times are there then."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    stop = context.Event()
    process = context.Process(target=_ask_health, args=(port, stop, theirs), daemon=True)
    process.start()
    health = Health()
    ours.recv()  # it has asked once
    try:
        yield health
    finally:
        stop.set()
        health.seconds = ours.recv()
        process.join()


def _ask_health(port: int, stop: Event, pipe: multiprocessing.connection.Connection) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    seconds: list[float] = []
    while not stop.wait(HEALTH_SECONDS):
        began = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - began)
        if len(seconds) == 1:
            pipe.send(None)
    pipe.send(seconds[1:])


def idle(server: Server) -> str:
    """What /health takes while nothing is sent: what the machine itself does to it."""
    with watched_health(server.port) as health:
        time.sleep(IDLE_SECONDS)
    return f"{percentile(health.seconds, 50):.1f} ms (p99 {percentile(health.seconds, 99):.1f})"


def measure(server: Server, count: int, repeats: int) -> dict[str, Round]:
    """The three ways, after a few shots that are not counted."""
    shots = encode_shots()
    numbers = range(1, count + 1)
    batches = [batch(numbers[start : start + BATCH], shots) for start in range(0, count, BATCH)]
    ones = [batch([number], shots) for number in numbers]
    send_all(server, "/analyze_batch", batches[:2], 2)
    return {
        f"batches of {BATCH}, {BATCH_CONNECTIONS} connections": send_all(
            server, "/analyze_batch", batches, BATCH_CONNECTIONS
        ),
        f"batches of {BATCH}, {MORE_CONNECTIONS} connections": send_all(
            server, "/analyze_batch", batches, MORE_CONNECTIONS
        ),
        f"batches of 1, {ONES_CONNECTIONS} connections": send_all(server, "/analyze_batch", ones, ONES_CONNECTIONS),
        "one shot alone": send_all(server, "/analyze", [single(1, shots)] * repeats, 1),
    }


def percentile(seconds: Sequence[float], share: int) -> float:
    """In milliseconds; NaN where nothing was measured."""
    if len(seconds) < 2:
        return 1000 * seconds[0] if seconds else float("nan")
    return 1000 * statistics.quantiles(seconds, n=100, method="inclusive")[share - 1]


def table(rounds: dict[str, Round]) -> str:
    """A Markdown table; all times but the first are milliseconds, CPU times for each shot."""
    head = "shots sent | seconds | shots/s | in between | p50 | p99 | /health p50 | p99"
    head += " | server CPU | event loop | engine CPU"
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    for name, one in rounds.items():
        used = [1000 * each / one.shots for each in (one.cpu.server, one.cpu.loop, one.cpu.engines)]
        waits = [percentile(seconds, share) for seconds in (one.requests, one.health) for share in (50, 99)]
        cells = [f"{one.seconds:.1f}", f"{one.shots / one.seconds:.1f}", f"{one.rate:.1f}"]
        cells += [f"{wait:.0f}" for wait in waits[:2]] + [f"{wait:.1f}" for wait in (*waits[2:], *used)]
        lines.append(f"| {one.shots} {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _machine() -> str:
    """What the figures depend on. A start takes twice as long where Python compiles torch anew each time."""
    torch = importlib.util.find_spec("torch")
    kept = torch is not None and torch.cached is not None and Path(torch.cached).exists()
    python = f"Python {sys.version.split()[0]}{'' if kept else ' (keeps no bytecode of torch)'}"
    return f"{os.cpu_count()} cores, {how_many(load_settings())} processes read requests, {python}"


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.http", description=__doc__)
    parser.add_argument("--shots", type=int, default=40)
    parser.add_argument("--alone", type=int, default=ALONE, help="how often one shot is sent alone")
    add_options(parser)
    asked = parser.parse_args(arguments)
    behind = asked.model if asked.fixed_cost is None else f"an engine of {asked.fixed_cost:g} ms a batch"
    try:
        with serving(program_of(asked), {"QWEN_SERVER__MODEL__NAME": asked.model}) as server:
            print(f"{_machine()}; {behind}", flush=True)
            print(
                f"healthy {server.start_seconds:.1f} s after the start; idle, /health takes {idle(server)}\n",
                flush=True,
            )
            print(table(measure(server, asked.shots, asked.alone)))
    except RuntimeError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
