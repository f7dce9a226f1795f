"""Imports run downward only: the table of rooms, held by reading the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

# Room to the rooms that it may import; the order is the order of the floors.
MAY_IMPORT: dict[str, set[str]] = {
    "qwen_shots": set(),
    "settings": {"qwen_shots"},
    "problems": {"qwen_shots"},
    "logs": set(),
    "process_name": set(),
    "telemetry": set(),
    "request_log": {"logs", "telemetry"},
    "wire": {"qwen_shots"},
    "security": {"problems", "qwen_shots", "settings"},
    "api_docs": {"problems", "qwen_shots"},
    "model_files": {"qwen_shots"},
    "model_hub": {"model_files", "qwen_shots"},
    "model_loader": {"model_files", "model_hub", "qwen_shots", "settings"},
    "engines": {"lifeline", "logs", "model_loader", "process_name", "qwen_shots", "settings"},
    "analyzer": {"engines", "qwen_shots", "settings"},
    "lifeline": set(),
    "intake": {"engines", "problems", "qwen_shots", "wire"},
    "connections": {"problems", "request_log", "telemetry"},
    "metrics_sum": set(),
    "draining": {"connections", "engines", "settings"},
    "front": {"draining", "engines", "lifeline", "logs", "process_name", "settings"},
    "loading": {"engines"},
    "fronts": {"engines", "loading"},
    "process": {
        "draining", "engines", "front", "fronts", "lifeline", "logs", "metrics_sum", "qwen_shots", "settings",
        "telemetry",
    },
    "server": {
        "analyzer", "api_docs", "engines", "intake", "loading", "problems", "process", "qwen_shots", "request_log",
        "security", "settings", "telemetry", "wire",
    },
    "deploy": {"engines", "logs", "model_loader", "process", "qwen_shots", "server", "settings"},
}  # fmt: skip
WEB_ROOMS = {
    "server",
    "connections",
    "draining",
    "front",
    "intake",
    "process",
    "security",
    "problems",
    "api_docs",
    "request_log",
    "deploy",
}
TORCH_ROOMS = {"model_loader", "engines"}


def files_of(room: str) -> list[Path]:
    single = ROOT / f"{room}.py"
    return [single] if single.exists() else sorted((ROOT / room).rglob("*.py"))


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_downward(room: str) -> None:
    ours = {*MAY_IMPORT, "tests", "training", "benchmarks", "deploy", "scripts"}
    for file in files_of(room):
        seen = set(imports_of(file))
        assert seen & ours <= MAY_IMPORT[room] | {room}, file
        if room not in WEB_ROOMS:
            assert not seen & {"fastapi", "starlette", "uvicorn"}, file
        if room not in TORCH_ROOMS:
            assert not seen & {"torch", "transformers"}, file


def test_every_room_is_listed() -> None:
    modules = {file.stem for file in ROOT.glob("*.py")}
    assert modules <= set(MAY_IMPORT)


def test_the_server_process_stays_without_torch() -> None:
    code = "import server, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
