"""The files in deploy/, read by the tools that they are for, and held against the server that they run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
import yaml

from qwen_shots import errors
from settings import Settings
from telemetry import Metrics
from tests.helpers import ROOT
from tests.test_imports import MAY_IMPORT

DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
# Prometheus' own word for whether it could read a target.
OTHERS_METRICS = {"up"}


def run(*command: str | Path, cwd: Path = DEPLOY) -> str:
    """What a tool says of the files; it must be content."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tool(name: str) -> str:
    """Where it is; the test skips without it."""
    return shutil.which(name) or pytest.skip(f"needs {name}")


def copied() -> Iterator[tuple[Path, Path]]:
    """File in the project and place in the image, for each that the Dockerfile copies into it."""
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    for line in re.findall(r"^COPY (?!--from)(.+)$", last, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            for found in ROOT.glob(source):
                place = Path(target) if found.is_dir() else Path(target) / found.name
                yield found, place


def expressions() -> list[str]:
    """Every PromQL expression of the dashboard and the alerts."""
    dashboard = json.loads((DEPLOY / "grafana/dashboard.json").read_text(encoding="utf-8"))
    alerts = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))
    curves = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    return [text.replace("$__rate_interval", "1m") for text in curves + rules]


def test_hadolint() -> None:
    run(BIN / "hadolint", "Dockerfile")


def test_the_image_holds_what_the_server_imports(tmp_path: Path) -> None:
    for source, place in copied():
        target = tmp_path / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    rooms = [room for room in MAY_IMPORT if room != "deploy"]  # that one wants Ray
    code = f"import {', '.join(rooms)}, engines.local, engines.runner, scripts.healthy"
    run(sys.executable, "-c", f"{code}; server.create_app(settings.load_settings())", cwd=tmp_path)
    assert (tmp_path / "deploy/ray_app.py").exists()


def test_the_image_can_build_the_gpus_kernels_and_keep_them() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert "gcc libc6-dev" in last
    (kept,) = re.findall(r"TRITON_CACHE_DIR=(\S+)", last)
    (volume,) = re.findall(r"^VOLUME (\S+)$", last, re.MULTILINE)
    # The rest of the container is read-only, and what lies on docker's tmpfs can't be run.
    assert Path(volume) in Path(kept).parents
    assert f"models:{volume}" in (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    assert f"mountPath: {volume}" in (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")


def test_the_alerts_are_those_that_the_page_tells_of() -> None:
    alerts = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))
    names = [rule["alert"] for group in alerts["groups"] for rule in group["rules"]]
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    assert re.findall(r"^- \*\*(\w+)\*\*", page, re.MULTILINE) == names


def test_the_alerts_ask_for_outcomes_that_there_are() -> None:
    asked = set(re.findall(r'outcome=~"([^"]+)"', (DEPLOY / "alerts.yml").read_text(encoding="utf-8"))[0].split("|"))
    assert asked <= {getattr(error, "slug", None) for error in vars(errors).values()}


def test_the_build_sees_what_it_copies() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    shown = [line[1:] for line in ignored if line.startswith("!")]
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert any(Path(source).match(pattern) or source.startswith(f"{pattern}/") for pattern in shown), source


@pytest.mark.ray
def test_compose() -> None:
    command = tool("docker-compose")
    environment = ("env", "GRAFANA_PASSWORD=secret")
    run(*environment, command, "-f", "compose.yaml", "config", "--quiet")
    cpu = run(*environment, command, "-f", "compose.yaml", "-f", "compose.cpu.yaml", "config")
    assert "nvidia" not in cpu


def test_kubernetes() -> None:
    run(BIN / "kubernetes-validate", "--strict", "kubernetes.yaml")


def test_systemd(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    unit = (DEPLOY / "qwen-shots.service").read_text(encoding="utf-8")
    # It wants the programs that a unit names to be there.
    here = unit.replace("/opt/qwen-shots/.venv/bin/python", sys.executable).replace("/opt/qwen-shots", str(ROOT))
    (tmp_path / "qwen-shots.service").write_text(here, encoding="utf-8")
    said = run(analyze, "verify", "--man=no", tmp_path / "qwen-shots.service")
    assert "qwen-shots.service" not in said, said


@pytest.mark.ray
def test_prometheus(tmp_path: Path) -> None:
    promtool = tool("promtool")
    config = (DEPLOY / "prometheus.yml").read_text(encoding="utf-8")
    key = tmp_path / "api_key"
    key.write_text("a-key-of-my-own\n", encoding="utf-8")
    (tmp_path / "prometheus.yml").write_text(config.replace("/run/secrets/api_key", str(key)), encoding="utf-8")
    shutil.copy(DEPLOY / "alerts.yml", tmp_path)
    run(promtool, "check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("expression", expressions())
def test_every_curve_and_alert_asks_for_a_metric_of_the_server(expression: str) -> None:
    promql_parser.parse(expression)
    metrics = Metrics()
    metrics.request("/analyze", 200, 1.0, "invalid-shot")
    metrics.shot("ok")
    known = {sample.name for family in metrics.registry.collect() for sample in family.samples} | OTHERS_METRICS
    asked = set(re.findall(r"\b(up|qwen_\w+)\b", expression))
    assert asked
    assert asked <= known


def test_whoever_stops_the_server_waits_until_it_is_drained(settings: Settings) -> None:
    drain = settings.server.drain_timeout
    pods = [doc for doc in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()) if doc["kind"] == "Deployment"]
    (pod,) = [doc["spec"]["template"]["spec"] for doc in pods]
    pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > drain + pause
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    assert int(compose["services"]["server"]["stop_grace_period"].removesuffix("s")) > drain
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", (DEPLOY / "qwen-shots.service").read_text(), re.MULTILINE)
    assert int(seconds) > drain
