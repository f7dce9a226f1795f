"""A fleet of 1 to 1,000 GPUs, played through: `python -m benchmarks.fleet`.

Clients send requests and wait for each answer. A request passes the link and the proxy of an ingress machine and one of
its cores; each of its shots then goes to the shorter queue of two replicas that are drawn (as Ray Serve does it), and a
replica takes as many as a batch on its GPU holds. An answer is there when the last of its shots is. What each stage
takes is a parameter; docs/sizing.md tells which defaults were measured.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import simpy

GPU_BATCH = 110  # shots of three full pictures that a batch on a GPU holds, about (engines/budget.py)
IN_FLIGHT = 3  # batches in hand for each GPU: one on it, the next ready, one on its way
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is played through.

    Attributes:
        gpus: engine replicas.
        rate: shots a second of one GPU whose batches are full.
        machines: ingress machines; 0: as many as the GPUs need (`machines_for`).
        cores: of each ingress machine.
        ingress_ms: processor time of the ingress for one shot.
        proxy_ms: processor time of the machine's one proxy for one shot.
        shot_kb: bytes of one shot as a client sends it, in 1000.
        passed_kb: bytes of its key frames as an ingress passes them on, in 1000.
        gbit: the link of an ingress machine, in each direction.
        queue: shots that an ingress machine may have in hand; others are refused and not played.
        request: shots in one request.
        jitter: standard deviation of the logarithm of a batch's time.
        slow: share of the GPUs that are stragglers.
        slowness: times as long as others take, for stragglers.
        batches: what is measured, in times that a GPU takes for a full one, after as long for warming up.
    """

    gpus: int = 1
    rate: float = 60.0
    machines: int = 0
    cores: int = 16
    ingress_ms: float = 29.6
    proxy_ms: float = 1.1
    shot_kb: float = 442.0
    passed_kb: float = 1790.0
    gbit: float = 10.0
    queue: int = 1280
    request: int = 10
    jitter: float = 0.1
    slow: float = 0.01
    slowness: float = 3.0
    batches: int = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        machines: ingress machines.
        rate: shots answered each second.
        share: of what the GPUs could do if none ever waited and none were slow.
        median: seconds from sending a request to its answer.
        worst: the same for 1 request of 100.
        busy: share of the time that each stage was in use, 0 to 1.
    """

    machines: int
    rate: float
    share: float
    median: float
    worst: float
    busy: dict[str, float]

    @property
    def limit(self) -> str:
        """The stage that is busiest."""
        return max(self.busy, key=lambda stage: self.busy[stage])


def machine_rate(fleet: Fleet) -> dict[str, float]:
    """Shots a second that one ingress machine can pass on, by stage."""
    return {
        "link": fleet.gbit * 1e9 / 8 / (1000 * max(fleet.shot_kb, fleet.passed_kb)),
        "proxy": 1000 / fleet.proxy_ms,
        "ingress": 1000 * fleet.cores / fleet.ingress_ms,
    }


def machines_for(fleet: Fleet) -> int:
    """Ingress machines that are at most 70 % busy; above that, queues grow fast."""
    return max(1, math.ceil(fleet.gpus * fleet.rate / (0.7 * min(machine_rate(fleet).values()))))


@dataclass(slots=True)
class Stage:
    """Servers that work on one thing at a time each, and how long they were busy."""

    servers: simpy.Resource
    busy: float = 0.0

    def serve(self, env: simpy.Environment, seconds: float) -> Process:
        """Wait for a server and keep it for so long."""
        with self.servers.request() as turn:
            yield turn
            yield env.timeout(seconds)
        self.busy += seconds


@dataclass(slots=True, eq=False)
class Request:
    """A batch of shots that are not answered."""

    done: simpy.Event
    open: int


@dataclass(slots=True, eq=False)
class Replica:
    """A GPU with its queue of shots."""

    slowness: float
    waiting: deque[Request] = field(default_factory=deque)
    in_hand: int = 0
    arrived: simpy.Event | None = None
    busy: float = 0.0

    @property
    def load(self) -> int:
        """Shots that are its business now."""
        return len(self.waiting) + self.in_hand

    def put(self, request: Request) -> None:
        """One shot more."""
        self.waiting.append(request)
        if self.arrived is not None and not self.arrived.triggered:
            self.arrived.succeed()


class Play:
    """One fleet's run."""

    def __init__(self, fleet: Fleet, seed: int = 1) -> None:
        self._fleet = fleet
        self._random = random.Random(seed)
        self._env = simpy.Environment()
        self._machines = fleet.machines or machines_for(fleet)
        self._links = self._stages(1)
        self._proxies = self._stages(1)
        self._ingresses = self._stages(fleet.cores)
        slow = round(fleet.slow * fleet.gpus)
        self._replicas = [Replica(fleet.slowness if n < slow else 1.0) for n in range(fleet.gpus)]
        self._answered: list[tuple[float, float]] = []

    def _stages(self, servers: int) -> list[Stage]:
        return [Stage(simpy.Resource(self._env, servers)) for _ in range(self._machines)]

    def run(self) -> Outcome:
        """Play, and count what happened after warming up."""
        fleet, seconds = self._fleet, self._fleet.batches * GPU_BATCH / self._fleet.rate
        for replica in self._replicas:
            self._env.process(self._look(replica))
        shots = min(IN_FLIGHT * GPU_BATCH * fleet.gpus, fleet.queue * self._machines)
        for client in range(math.ceil(shots / fleet.request)):
            self._env.process(self._send(client % self._machines))
        self._env.run(seconds)
        before = self._busy()
        self._env.run(2 * seconds)
        busy = {stage: (used - before[stage]) / seconds for stage, used in self._busy().items()}
        times = [took for ended, took in self._answered if ended > seconds]
        rate = len(times) * fleet.request / seconds
        median, worst = np.percentile(times, [50, 99])
        return Outcome(self._machines, rate, rate / (fleet.gpus * fleet.rate), float(median), float(worst), busy)

    def _busy(self) -> dict[str, float]:
        """Seconds that a server of each stage was busy, the mean of all."""
        return {
            "link": sum(stage.busy for stage in self._links) / self._machines,
            "proxy": sum(stage.busy for stage in self._proxies) / self._machines,
            "ingress": sum(stage.busy for stage in self._ingresses) / self._machines / self._fleet.cores,
            "GPUs": sum(replica.busy for replica in self._replicas) / self._fleet.gpus,
        }

    def _send(self, machine: int) -> Process:
        """A client that sends its next request when it has the answer to the last one."""
        env, fleet, shots = self._env, self._fleet, self._fleet.request
        # Not all at once: clients come when they like.
        yield env.timeout(self._random.random() * GPU_BATCH / fleet.rate)
        while True:
            began = env.now
            yield from self._links[machine].serve(env, shots / machine_rate(fleet)["link"])
            yield from self._proxies[machine].serve(env, shots * fleet.proxy_ms / 1000)
            yield from self._ingresses[machine].serve(env, shots * fleet.ingress_ms / 1000)
            request = Request(env.event(), shots)
            for _ in range(shots):
                self._pick().put(request)
            yield request.done
            self._answered.append((env.now, env.now - began))

    def _pick(self) -> Replica:
        one, other = self._random.choice(self._replicas), self._random.choice(self._replicas)
        return one if one.load <= other.load else other

    def _look(self, replica: Replica) -> Process:
        """A GPU's life: wait for shots, look at a batch, answer."""
        env, fleet = self._env, self._fleet
        while True:
            if not replica.waiting:
                replica.arrived = env.event()
                yield replica.arrived
            batch = [replica.waiting.popleft() for _ in range(min(GPU_BATCH, len(replica.waiting)))]
            replica.in_hand = len(batch)
            took = len(batch) / fleet.rate * replica.slowness * self._random.lognormvariate(0, fleet.jitter)
            yield env.timeout(took)
            replica.busy += took
            replica.in_hand = 0
            for request in batch:
                request.open -= 1
                if request.open == 0:
                    request.done.succeed()


def table(fleet: Fleet, counts: Sequence[int]) -> Iterator[str]:
    """Rows of Markdown, one for each number of GPUs."""
    yield "| GPUs | ingress machines | shots/s | of what the GPUs could | median, s | 99 of 100, s | busiest |"
    yield "|---|---|---|---|---|---|---|"
    for gpus in counts:
        yield row(replace(fleet, gpus=gpus), Play(replace(fleet, gpus=gpus)).run())


def row(fleet: Fleet, outcome: Outcome) -> str:
    """One fleet's outcome."""
    busiest = f"{outcome.limit} {100 * min(1, outcome.busy[outcome.limit]):.0f} %"
    return (
        f"| {fleet.gpus:,} | {outcome.machines} | {outcome.rate:,.0f} | {100 * outcome.share:.0f} % "
        f"| {outcome.median:.1f} | {outcome.worst:.1f} | {busiest} |"
    )


def draw(fleets: dict[str, Fleet], counts: Sequence[int], file: Path) -> None:
    """Shots a second and the slowest answers over GPUs, a curve for each fleet."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "qwen-shots"  # the same picture gives the same file
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for (name, fleet), marker in zip(fleets.items(), itertools.cycle("os^"), strict=False):
        outcomes = [Play(replace(fleet, gpus=gpus)).run() for gpus in counts]
        left.plot(counts, [outcome.rate for outcome in outcomes], marker=marker, label=name)
        right.plot(counts, [outcome.worst for outcome in outcomes], marker=marker, label=name)
    left.set(xscale="log", yscale="log", xlabel="GPUs", title="shots/s")
    right.set(xscale="log", ylim=(0, None), xlabel="GPUs", title="seconds until 99 of 100 requests are answered")
    left.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def scenarios(fleet: Fleet) -> dict[str, Fleet]:
    """The fleets that docs/sizing.md shows."""
    return {
        "one ingress machine": replace(fleet, machines=1),
        "as many ingress machines as needed": fleet,
        "the same, no stragglers": replace(fleet, slow=0.0),
    }


def main(arguments: Sequence[str]) -> int:
    """Print a table for each scenario, and draw them where a file is named; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.fleet", description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--picture", type=Path, help="an SVG file to draw")
    standard = Fleet()
    for name in (
        "rate",
        "ingress_ms",
        "proxy_ms",
        "shot_kb",
        "passed_kb",
        "gbit",
        "jitter",
        "slow",
        "slowness",
    ):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(standard, name))
    for name in ("cores", "queue", "request", "batches"):
        parser.add_argument(f"--{name}", type=int, default=getattr(standard, name))
    asked = vars(parser.parse_args(arguments))
    counts, picture = asked.pop("gpus"), asked.pop("picture")
    fleets = scenarios(Fleet(**asked))
    for name, fleet in fleets.items():
        print(f"{name}, {fleet.rate:g} shots/s a GPU:\n")
        for line in table(fleet, counts):
            print(line, flush=True)
        print()
    if picture:
        draw(fleets, counts, picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
