"""One shot beside a film: how long it takes, and how long with `Prefer: wait`: `python -m benchmarks.urgent`.

A film is sent in batches of 10 from many connections, without a pause. Beside it one client sends a shot at a time, in
turn as everybody does and with a deadline, which lets it go before the film's shots. `--fixed-cost MS` as in
`benchmarks.http`; other settings: variables, as in config.yaml.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import statistics
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from benchmarks.http import BATCH, TIMEOUT, batch, encode_shots, percentile, send, single
from benchmarks.serving import Server, add_options, program_of, serving

WAYS: Mapping[str, Mapping[str, str]] = {"as everybody": {}, "Prefer: wait=60": {"Prefer": "wait=60"}}
SHOTS = 20
CONNECTIONS = 24


@contextmanager
def film(server: Server, shots: Sequence[bytes], connections: int) -> Iterator[None]:
    """Send batches until the block ends."""
    stop = threading.Event()
    busy = threading.Semaphore(0)

    def one_connection(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
        for number in itertools.count(first, BATCH):
            if stop.is_set():
                break
            send(connection, "/analyze_batch", batch(range(number, number + BATCH), shots))
            busy.release()
        connection.close()

    threads = [threading.Thread(target=one_connection, args=(1000 * n,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for _ in threads:
        busy.acquire()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def measure(server: Server, count: int, connections: int) -> dict[str, list[float]]:
    """Seconds of each shot by each way."""
    shots = encode_shots()
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    with film(server, shots, connections):
        for number in range(count):
            for name, headers in WAYS.items():
                seconds[name].append(send(connection, "/analyze", single(number, shots), headers).seconds)
    connection.close()
    return seconds


def table(seconds: Mapping[str, Sequence[float]]) -> str:
    """Markdown; the ratio is that of the medians."""
    first = statistics.median(next(iter(seconds.values())))
    lines = ["| one shot | p50, ms | p90, ms | times as soon |", "|---|---|---|---|"]
    for name, each in seconds.items():
        times = first / statistics.median(each)
        lines.append(f"| {name} | {percentile(each, 50):.0f} | {percentile(each, 90):.0f} | {times:.1f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.urgent", description=__doc__)
    parser.add_argument("--shots", type=int, default=SHOTS, help="sent alone, by each way")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="that send the film")
    add_options(parser)
    asked = parser.parse_args(arguments)
    try:
        with serving(program_of(asked), {"QWEN_SERVER__MODEL__NAME": asked.model}) as server:
            print(f"beside a film from {asked.connections} connections, {BATCH} shots a request\n", flush=True)
            print(table(measure(server, asked.shots, asked.connections)))
    except RuntimeError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
