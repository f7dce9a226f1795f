"""One server on 1, 2, 4 GPUs of a machine: `python -m benchmarks.replicas --gpus 1 2 4 --model FOLDER`.

For each number of GPUs the whole server over HTTP with a copy of the model on each (`model.placement: replicate`), as
in `benchmarks.http`, and an engine process killed in the middle of a film; then one model over all of them (`shard`).
All must answer the same. `--fixed-cost MS` plays it with engines that sleep so long for each batch, and wants no GPU.
Other settings: variables, as in config.yaml.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks import fixed_cost
from benchmarks.http import BATCH, JSON, TIMEOUT, Body, Round, batch, encode_shots, percentile, send_all
from benchmarks.serving import Server, add_options, children, program_of, serving

CONNECTIONS_A_GPU = 16  # 160 shots in hand: a batch in the engine's hands, and most of the next one
SHOTS_COMPARED = 10
KILLED_AFTER_SECONDS = 2.0


Way: TypeAlias = tuple[int, str, int]
"""GPUs, `model.placement` and `server.http_processes`."""


@dataclass(frozen=True, slots=True)
class Row:
    """How one way did.

    Attributes:
        gpus: how many there were.
        placement: `replicate` or `shard`.
        processes: `server.http_processes`.
        seconds: for the whole film.
        rate: shots a second.
        health_ms: 99th percentile of /health meanwhile.
        server_cpu_ms: of a core, for each shot.
        told: what /health says.
    """

    gpus: int
    placement: str
    processes: int
    seconds: float
    rate: float
    health_ms: float
    server_cpu_ms: float
    told: Mapping[str, Any]


def variables(model: str, gpus: int, placement: str, processes: int) -> dict[str, str]:
    """Settings for a server of its own."""
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus))),
        fixed_cost.ENGINES: str(max(1, gpus)),
        "QWEN_SERVER__MODEL__NAME": model,
        "QWEN_SERVER__MODEL__PLACEMENT": placement,
        "QWEN_SERVER__SERVER__HTTP_PROCESSES": str(processes),
    }


def film(count: int) -> list[Body]:
    """Requests of 10 shots."""
    shots = encode_shots()
    return [batch(range(first, min(first + BATCH, count + 1)), shots) for first in range(1, count + 1, BATCH)]


def play(server: Server, bodies: Sequence[Body], gpus: int) -> Round:
    """Send a film after some batches that are not counted: every engine has looked at a full one then."""
    connections = CONNECTIONS_A_GPU * gpus
    send_all(server, "/analyze_batch", bodies[: 2 * connections], connections)
    return send_all(server, "/analyze_batch", bodies, connections)


def ask(server: Server, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
    """One answer's JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    connection.request(method, path, body, JSON)
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def answers(server: Server) -> list[Mapping[str, float]]:
    """The scores of some shots."""
    body = b"".join(batch(range(1, SHOTS_COMPARED + 1), encode_shots()))
    return [result["attributes"] for result in ask(server, "POST", "/analyze_batch", body)["results"]]


def farthest(some: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]) -> float:
    """How far two answers to the same shots are apart at most."""
    return max(abs(one[name] - other[name]) for one, other in zip(some, others, strict=True) for name in one)


def kill_one(server: Server, bodies: Sequence[Body], gpus: int) -> str:
    """Kill an engine in the middle of a film; what became of it, in a sentence.

    Raises:
        RuntimeError: a shot was lost.
    """
    engine = children(server.pid, "qwen-engine")[-1]
    seen: dict[str, float] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen[ask(server, "GET", "/health")["status"]] = time.monotonic()
            time.sleep(0.02)

    killer = threading.Timer(KILLED_AFTER_SECONDS, os.kill, (engine, signal.SIGKILL))
    watcher = threading.Thread(target=watch)
    for thread in (killer, watcher):
        thread.start()
    done = send_all(server, "/analyze_batch", bodies, CONNECTIONS_A_GPU * gpus)
    killer.join()
    while ask(server, "GET", "/health")["status"] != "healthy":
        time.sleep(0.1)
    over.set()
    watcher.join()
    degraded = "degraded" if "degraded" in seen else "never degraded"
    return f"an engine killed: {done.shots} shots answered in {done.seconds:.1f} s, none lost; {degraded}, then healthy"


def measure(server: Server, way: Way, bodies: Sequence[Body]) -> Row:
    """Play a film by one way."""
    told = ask(server, "GET", "/health")
    done = play(server, bodies, way[0])
    health, cpu = percentile(done.health, 99), 1000 * done.cpu.server / done.shots
    return Row(*way, done.seconds, done.shots / done.seconds, health, cpu, told)


def table(rows: Sequence[Row]) -> str:
    """Markdown; rates against the first row's."""
    head = "GPUs | placement | HTTP processes | seconds | shots/s | times the first | /health p99, ms | CPU ms a shot"
    lines = [f"| {head} | /health says |", "|" + "---|" * 9]
    for row in rows:
        memory = f"{row.told['gpu_count']} GPUs, {row.told['gpu_memory_total']}"
        figures = f"{row.seconds:.1f} | {row.rate:.1f} | {row.rate / rows[0].rate:.2f}"
        used = f"{row.health_ms:.0f} | {row.server_cpu_ms:.0f}"
        lines.append(f"| {row.gpus} | {row.placement} | {row.processes} | {figures} | {used} | {memory} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print what was seen; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.replicas", description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2], help="how many, one after another")
    parser.add_argument("--processes", type=int, nargs="+", help="server.http_processes of each; as many as GPUs")
    parser.add_argument("--shots", type=int, default=1000)
    add_options(parser)
    parser.add_argument("--out", type=Path, help="a JSON file to keep the rows in")
    asked = parser.parse_args(arguments)
    processes = asked.processes or asked.gpus
    most = max(asked.gpus)
    ways: list[Way] = [(gpus, "replicate", count) for gpus, count in zip(asked.gpus, processes, strict=True)]
    ways += [(most, "shard", 1)] if most > 1 and asked.fixed_cost is None else []
    bodies, rows, said = film(asked.shots), [], []
    try:
        for way in ways:
            with serving(program_of(asked), variables(asked.model, *way)) as server:
                said.append(answers(server))
                rows.append(measure(server, way, bodies))
                print(f"{table(rows[-1:])}\nscores differ by {farthest(said[0], said[-1]):.4f} at most", flush=True)
                if way[:2] == (most, "replicate") and most > 1:  # one alone has nobody to take its shots
                    print(kill_one(server, bodies, most), flush=True)
    except RuntimeError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    print(f"\n{table(rows)}")
    if asked.out:
        asked.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
