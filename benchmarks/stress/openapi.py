"""Schemathesis makes requests up from the OpenAPI text and holds every answer against it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile

from benchmarks.stress.bars import Bar
from benchmarks.stress.target import target
from tests.helpers import AUTH, ROOT

# Two of the five routes have bodies, and hardly any other request can be made up for the rest.
ROUTES_WITH_BODIES = 2


def check(cases: int, phases: str = "examples,coverage,fuzzing") -> list[Bar]:
    """Let it make up at least so many."""
    # It leaves a cache where it is run.
    with tempfile.TemporaryDirectory() as folder, target({"batch_tokens": 1000}) as server:
        words = [
            "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", f"{server.url}/openapi.json",
            "--checks", "all", "--max-examples", str(cases // ROUTES_WITH_BODIES), "--phases", phases,
            "--request-timeout", "60", "--seed", "1", "--no-color", "--continue-on-failure",
            "--header", f"Authorization: {AUTH['Authorization']}",
        ]  # fmt: skip
        hooks = {"SCHEMATHESIS_HOOKS": "benchmarks.stress.openapi_hooks", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *words], cwd=folder, env=os.environ | hooks, capture_output=True, text=True, check=False
        )
    made = re.search(r"(\d+) generated", done.stdout)
    count = int(made[1]) if made else 0
    told = f"{count} cases, exit code {done.returncode}"
    if done.returncode:
        failures = re.findall(r"(?:❌|- |🚫)\s*(.*:.*)", done.stdout) or [done.stderr[-300:]]
        told += ": " + "; ".join(failures[:3])
    return [
        Bar("Schemathesis, all checks", f"{cases} cases, no failure", told, done.returncode == 0 and count >= cases)
    ]
