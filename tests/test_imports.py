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
    "processes": set(),
    "telemetry": set(),
    "security": {"problems", "qwen_shots", "settings"},
    "served_models": {"qwen_shots"},
    "model_files": {"qwen_shots", "served_models"},
    "model_hub": {"model_files", "qwen_shots", "served_models"},
    "model_loader": {"model_files", "model_hub", "processes", "qwen_shots", "served_models", "settings"},
    "engines": {"logs", "model_loader", "processes", "qwen_shots", "served_models", "settings"},
    "analyzer": {"engines", "processes", "qwen_shots", "settings"},
    "serving.model_header": {"engines", "qwen_shots", "settings"},
    "serving.api_docs": {"problems", "qwen_shots", "serving.model_header"},
    "serving.json_body": {"qwen_shots"},
    "serving.wire": {"qwen_shots", "serving.json_body"},
    "serving.intake": {"engines", "problems", "qwen_shots", "serving.json_body"},
    "serving.home": set(),
    "serving.cors": {"problems", "qwen_shots"},
    "serving.strict_http": set(),
    "serving.lingering": set(),
    "serving.request_log": {"logs", "telemetry"},
    "serving.connections": {
        "problems", "serving.lingering", "serving.model_header", "serving.request_log", "serving.strict_http",
        "telemetry",
    },
    "serving.accepting": set(),
    "serving.draining": {
        "engines", "processes", "serving.accepting", "serving.connections", "serving.model_header", "settings",
    },
    "serving.metrics_sum": set(),
    "serving.loading": {"engines"},
    "serving.front": {
        "engines", "logs", "processes", "qwen_shots", "serving.accepting", "serving.draining", "settings",
    },
    "serving.fronts": {"engines", "processes", "serving.accepting", "serving.loading"},
    "serving.process": {
        "engines", "logs", "processes", "qwen_shots", "serving.draining", "serving.front", "serving.fronts",
        "serving.metrics_sum", "settings", "telemetry",
    },
    "server": {
        "analyzer", "engines", "problems", "qwen_shots", "security", "serving.api_docs", "serving.cors",
        "serving.home", "serving.intake",
        "serving.loading", "serving.model_header", "serving.process", "serving.request_log", "serving.wire", "settings",
        "telemetry",
    },
    "deploy": {"engines", "logs", "model_loader", "qwen_shots", "server", "serving.process", "settings"},
}  # fmt: skip
WEB_ROOMS = {
    "server",
    "security",
    "problems",
    "deploy",
    *(
        f"serving.{name}"
        for name in ("api_docs", "connections", "cors", "draining", "front", "home", "intake", "process")
    ),
    "serving.model_header",
    "serving.request_log",
}
TORCH_ROOMS = {"model_loader", "engines"}


# Whose modules are rooms of their own: they stand on several floors.
SPLIT = "serving"


def files_of(room: str) -> list[Path]:
    place = ROOT / room.replace(".", "/")
    single = place.with_suffix(".py")
    return [single] if single.exists() else sorted(place.rglob("*.py"))


def room_of(module: str) -> str:
    first, _, rest = module.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first == SPLIT and rest else first


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (room_of(name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == SPLIT:
            yield from (f"{SPLIT}.{name.name}" for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield room_of(node.module)


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
    modules |= {f"{SPLIT}.{file.stem}" for file in (ROOT / SPLIT).glob("[!_]*.py")}
    assert modules <= set(MAY_IMPORT)


def test_the_server_process_stays_without_torch() -> None:
    code = "import server, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
