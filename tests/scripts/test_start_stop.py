"""start_server.sh and stop_server.sh as a user runs them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from scripts import healthy
from tests.helpers import AUTH, BUNDLED, broken_model, shot
from tests.scripts.conftest import Run
from tests.scripts.processes import processes_in, wait_for


def assert_failed(done: subprocess.CompletedProcess[str], word: str, project: Path) -> None:
    assert done.returncode != 0
    assert done.stderr.count("ERROR: ") == 1, done.stderr
    assert word in done.stderr
    assert not (project / ".qwen_server.pid").exists()
    assert processes_in(project) == set()


def test_start_twice_and_stop_twice(run: Run, project: Path, port: int) -> None:
    started = run("start_server.sh", "--demo", SERVER__DRAIN_TIMEOUT="77")
    assert (started.returncode, "healthy" in started.stdout) == (0, True), started.stderr
    assert (project / ".qwen_server.pid").read_text().splitlines()[2] == "77"
    assert httpx.get(f"http://127.0.0.1:{port}/health").json()["model"] == BUNDLED
    again = run("start_server.sh", "--demo")
    assert (again.returncode, "running already" in again.stdout) == (0, True)
    assert f"http://127.0.0.1:{port} " in again.stdout
    stopped = run("stop_server.sh")
    assert (stopped.returncode, "stopped" in stopped.stdout) == (0, True)
    assert "77 s (server.drain_timeout)" in stopped.stdout
    assert processes_in(project) == set()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")
    nothing = run("stop_server.sh")
    assert (nothing.returncode, "no server is running" in nothing.stdout) == (0, True)


# A proxy that nobody reaches, in every spelling.
PROXIES = {
    name: "http://127.0.0.1:9"
    for lower in ("http_proxy", "https_proxy", "all_proxy")
    for name in (lower, lower.upper())
} | {"no_proxy": "", "NO_PROXY": ""}


def set_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PROXIES.items():
        monkeypatch.setenv(name, value)


def test_a_log_for_machines_behind_a_proxy(run: Run, project: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_proxies(monkeypatch)
    started = run("start_server.sh", "--demo", SERVER__LOG_FORMAT="json")
    assert (started.returncode, "healthy" in started.stdout) == (0, True), started.stderr
    with httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{port}", headers=AUTH) as client:
        assert client.post("/analyze", json=shot()).status_code == 200
    assert run("stop_server.sh").returncode == 0
    lines = [json.loads(line) for line in (project / "qwen_server.log").read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    assert [line["route"] for line in lines if line.get("status") == 200] == ["/analyze"]


def test_a_log_for_machines_of_a_server_that_can_not_start(run: Run, project: Path) -> None:
    assert_failed(run("start_server.sh", MODEL__NAME="./nowhere", SERVER__LOG_FORMAT="json"), "./nowhere", project)
    for line in (project / "qwen_server.log").read_text().splitlines():
        json.loads(line)


def test_whether_it_is_healthy_is_asked_past_proxies(live_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_proxies(monkeypatch)
    assert healthy.main([live_url]) == 0
    monkeypatch.setenv("QWEN_SERVER__SERVER__HOST", "127.0.0.1")
    monkeypatch.setenv("QWEN_SERVER__SERVER__PORT", live_url.rpartition(":")[2])
    assert healthy.main([]) == 0
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            with other.accept()[0] as connection:
                connection.sendall(b"no HTTP\r\n\r\n")
                connection.recv(4096)

        answering = threading.Thread(target=answer)
        answering.start()
        assert healthy.main([f"http://127.0.0.1:{other.getsockname()[1]}"]) == 1
        answering.join()


def test_two_starts_at_the_same_moment_are_one(run: Run, project: Path, port: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: run("start_server.sh", "--demo"), range(2))
    assert (one.returncode, other.returncode) == (0, 0), one.stderr + other.stderr
    assert sorted(["healthy: " in one.stdout, "healthy: " in other.stdout]) == [False, True]
    assert sorted(["running already" in one.stdout, "running already" in other.stdout]) == [False, True]
    assert "stopped" in run("stop_server.sh").stdout
    assert processes_in(project) == set()


def test_a_failed_start_does_not_forget_the_server_that_was_started_after_it(project: Path) -> None:
    pid_file = project / ".qwen_server.pid"
    for forgotten, left in (("12", True), ("123", False)):
        pid_file.write_text("123\nMon Jan  1 00:00:00 2001\n50\n")
        subprocess.run(
            ["bash", "-c", f". scripts/server_process.sh; forget_server {forgotten}"], cwd=project, check=True
        )
        assert pid_file.exists() == left


def test_without_an_environment(run: Run, project: Path) -> None:
    shutil.rmtree(project / ".venv")
    assert_failed(run("start_server.sh"), "run: ./setup.sh", project)


def test_a_package_that_is_missing(run: Run, project: Path) -> None:
    (project / "telemetry.py").write_text("import a_package_that_came_with_an_update\n")
    assert_failed(run("start_server.sh", "--demo"), "No module named 'a_package_that_came_with_an_update'", project)


def test_a_port_in_use(run: Run, project: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        assert_failed(run("start_server.sh", "--demo"), "server.port", project)


def test_a_port_where_another_server_is_healthy(run: Run, project: Path, live_url: str) -> None:
    taken = live_url.rpartition(":")[2]
    assert_failed(run("start_server.sh", "--demo", SERVER__PORT=taken), "server.port", project)


def test_an_address_that_is_not_this_machines(run: Run, project: Path) -> None:
    assert_failed(run("start_server.sh", "--demo", SERVER__HOST="192.0.2.1"), "Set server.host", project)


def test_a_broken_configuration(run: Run, project: Path) -> None:
    assert_failed(run("start_server.sh", MODEL__DTYPE="float8"), "model.dtype", project)


@pytest.mark.parametrize("reload", ["false", "true"])
def test_a_key_of_the_endpoints_that_can_be_none(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, reload: str
) -> None:
    monkeypatch.setenv("QWEN_ENDPOINT_KEY", "two words")
    remote = {"MODEL__ENGINE": "remote", "MODEL__ENDPOINTS": "http://127.0.0.1:9", "SERVER__RELOAD": reload}
    assert_failed(run("start_server.sh", **remote), "QWEN_ENDPOINT_KEY", project)
    log = (project / "qwen_server.log").read_text()
    assert "two words" not in log
    assert "Traceback" not in log


def test_a_model_that_is_not_there(run: Run, project: Path) -> None:
    assert_failed(run("start_server.sh", MODEL__NAME="./nowhere"), "./nowhere", project)


def test_a_model_that_was_not_fetched(run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    assert_failed(run("start_server.sh", MODEL__NAME="studio/shots"), "./setup.sh", project)


def test_a_model_that_breaks_while_it_loads(run: Run, project: Path, tmp_path: Path) -> None:
    broken = broken_model(tmp_path / "broken-model")
    assert_failed(run("start_server.sh", MODEL__NAME=str(broken)), "can't be loaded", project)


@pytest.mark.parametrize("reload", ["false", "true"])
def test_an_engine_that_is_killed_while_it_loads(run: Run, project: Path, reload: str) -> None:
    done: list[subprocess.CompletedProcess[str]] = []
    starter = threading.Thread(target=lambda: done.append(run("start_server.sh", "--demo", SERVER__RELOAD=reload)))
    starter.start()
    # The reloader spawns the server, which spawns the engine.
    spawned = 1 if reload == "false" else 2
    wait_for(lambda: len(processes_in(project, "spawn_main")) == spawned)
    youngest = max(map(psutil.Process, processes_in(project, "spawn_main")), key=psutil.Process.create_time)
    youngest.kill()
    starter.join()
    assert_failed(done[0], "exit code -9", project)


def test_a_process_that_was_not_started_here_is_left_alone(run: Run, project: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (project / ".qwen_server.pid").write_text(f"{stranger.pid}\nMon Jan  1 00:00:00 2001\n")
        assert run("stop_server.sh").returncode == 0
        assert stranger.poll() is None
        stranger.kill()


def test_a_stop_waits_as_long_as_the_server_may_take_and_then_says_so(run: Run, project: Path) -> None:
    with subprocess.Popen(["bash", "-c", "trap '' TERM; while :; do sleep 0.1; done"]) as deaf:
        started = ["bash", "-c", f". scripts/server_process.sh; started_at {deaf.pid}"]
        moment = subprocess.run(started, cwd=project, capture_output=True, text=True, check=True).stdout
        (project / ".qwen_server.pid").write_text(f"{deaf.pid}\n{moment}-13\n")  # 13 s less than the last 15
        stopped = run("stop_server.sh")
        assert (stopped.returncode, "ERROR: the server runs on after 2 s" in stopped.stderr) == (1, True)
        assert deaf.poll() is None
        deaf.kill()


@pytest.mark.parametrize("script", ["start_server.sh", "stop_server.sh"])
def test_help(run: Run, script: str) -> None:
    told = run(script, "--demo", "--help")
    assert (told.returncode, "--demo" in told.stdout) == (0, True)
    wrong = run(script, "--nonsense")
    assert (wrong.returncode, "unknown option --nonsense" in wrong.stderr) == (2, True)
