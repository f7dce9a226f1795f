"""A server to be stressed, in a process of its own, and what can be seen of it from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers import AUTH, ROOT, engines_of, free_port, server_environment, wait_until_healthy

MIB = 2**20
START_SECONDS = 900  # a large model from a slow disk, or a busy machine
END_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Target:
    """A running server.

    Attributes:
        port: of loopback.
        process: the server; its children are the engines.
        log: where it writes.
    """

    port: int
    process: subprocess.Popen[str]
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def memory_mib(self) -> float:
        """Resident memory of the server's process, without its engines."""
        resident: int = psutil.Process(self.process.pid).memory_info().rss
        return resident / MIB

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the server's process so far, without its engines."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def forget_peak(self) -> None:
        """Begin to measure the peak anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="ascii")

    @property
    def peak_mib(self) -> float:
        """The most resident memory since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 1024

    def client(self, timeout: float = 60) -> httpx.Client:
        """A client with the key."""
        return httpx.Client(base_url=self.url, headers=AUTH, timeout=timeout)

    def count(self, metric: str, **labels: str) -> float:
        """The sum of a metric's samples that have the labels."""
        with self.client() as client:
            text = client.get("/metrics").text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(
            sample.value for sample in samples if sample.name == metric and labels.items() <= sample.labels.items()
        )

    def engines(self) -> list[psutil.Process]:
        """The engine processes."""
        return engines_of(self.process.pid)


@contextmanager
def target(plan: dict[str, Any] | None = None, **settings: str) -> Iterator[Target]:
    """Start a server and wait until it is healthy; end it afterwards.

    Args:
        plan: fields of `tests.engines.faulty.Plan` for an engine without a model; None: the bundled checkpoint.
        settings: SECTION__KEY=value.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "server.log")
        words = ["server.py"]
        if plan is not None:
            told = json.dumps({"fault": "none", "count": str(Path(folder, "calls"))} | plan)
            words = ["-m", "benchmarks.stress.serve", told]
        with log.open("w", encoding="utf-8") as out:
            process = subprocess.Popen(
                [sys.executable, *words], cwd=ROOT, env=server_environment(port, **settings), stdout=out, stderr=out,
                text=True,
            )  # fmt: skip
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}", process, START_SECONDS)
            yield Target(port, process, log)
        finally:
            process.terminate()
            try:
                process.wait(timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
