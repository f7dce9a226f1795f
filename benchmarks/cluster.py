"""What the way of a shot through a Ray cluster costs: `make bench-cluster`.

Real Ray, real HTTP, engines that cost nothing: what is left is the proxy, the ingress (reading, checking and decoding
pictures, sending them on) and the replica's own part. Processor seconds are the kernel's, of each process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks import rounds
from qwen_shots.client.shots import find_shots
from qwen_shots.client.wire import wire_shots
from settings import load_settings
from tests.deploy import cluster
from tests.deploy.fakes import FixedCostEngine
from tests.helpers import AUTH, BUNDLED, ROOT

FILM = ROOT / "samples/big-buck-bunny-30s.mp4"
# Words in the names that Ray gives its processes, and what they are here.
KINDS = {"proxy": "proxy", "ingress": "ingress", "engine": "engine replica"}
REST = "the rest of Ray"


def shots_of(film: Path) -> list[dict[str, Any]]:
    """The film's shots as they go over the wire."""
    return [shot.model_dump(mode="json") for shot in wire_shots(film, find_shots(film))]


def cpu_seconds() -> dict[str, float]:
    """Processor time so far of the cluster's processes, by kind."""
    used = dict.fromkeys((*KINDS.values(), REST), 0.0)
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            name = " ".join(process.cmdline()).lower()
            kind = next((kind for word, kind in KINDS.items() if word in name and "ray::" in name), REST)
            times = process.cpu_times()
            used[kind] += times.user + times.system
    return used


async def send(url: str, bodies: Sequence[bytes], at_once: int) -> None:
    """Send the batches, so many at a time."""
    headers = AUTH | {"Content-Type": "application/json"}
    left = iter(bodies)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120) as client:

        async def one_connection() -> None:
            for body in left:
                answer = await client.post("/analyze_batch", content=body)
                assert answer.status_code == 200, answer.text
                assert not answer.json()["errors"], answer.text

        await asyncio.gather(*(one_connection() for _ in range(at_once)))


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.cluster", description=__doc__)
    parser.add_argument("--film", type=Path, default=FILM)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--shots", type=int, default=10, help="in each batch")
    asked = parser.parse_args(arguments)
    found = shots_of(asked.film)
    bodies = [
        json.dumps({"shots": [found[n % len(found)] | {"shot_id": n} for n in range(asked.shots)]}).encode()
        for _ in range(asked.batches)
    ]
    count = asked.batches * asked.shots
    sizes = [len(json.dumps(shot)) for shot in found]
    settings = load_settings(environ={"QWEN_SERVER__MODEL__NAME": BUNDLED, "QWEN_SERVER__MODEL__DEVICE": "cpu"})
    with cluster.running_cluster() as url:
        cluster.deploy(url, settings, partial(FixedCostEngine, seconds=0.0))
        asyncio.run(send(url, bodies[:5], 4))
        before, began = cpu_seconds(), time.perf_counter()
        asyncio.run(send(url, bodies, 4))
        took, after = time.perf_counter() - began, cpu_seconds()
    kilobytes = f"{np.mean(sizes) / 1000:.0f} kB a shot ({min(sizes) / 1000:.0f} to {max(sizes) / 1000:.0f})"
    print(f"\n{rounds.machine()}\n{asked.film.name}: {kilobytes}")
    print(f"{count} shots in batches of {asked.shots}, 4 at a time: {count / took:.1f} shots/s\n")
    print("| process | CPU ms a shot |\n|---|---|")
    for kind in before:
        print(f"| {kind} | {1000 * (after[kind] - before[kind]) / count:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
