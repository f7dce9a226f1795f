"""A running server meets signals, changes of its code, and its own sudden end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.helpers import (
    AUTH,
    PATIENCE_SECONDS,
    encode,
    engine_standing_still,
    running_server,
    scene,
    server_environment,
    shot,
)
from tests.scripts.conftest import Run
from tests.scripts.processes import processes_in, wait_for, wait_until_nothing_runs


def is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_reload_starts_again_on_a_change_and_stops_wholly(run: Run, project: Path, port: int) -> None:
    started = run("start_server.sh", "--demo", SERVER__RELOAD="true")
    assert started.returncode == 0, started.stderr
    before = processes_in(project, "spawn_main")
    (project / "analyzer.py").touch()
    wait_for(lambda: not before & processes_in(project, "spawn_main") and is_healthy(port))
    assert "changed: analyzer.py" in (project / "qwen_server.log").read_text()
    assert run("stop_server.sh").returncode == 0
    assert processes_in(project) == set()


def test_reload_waits_for_a_mistake_to_be_mended(run: Run, project: Path, port: int) -> None:
    config = project / "config.yaml"
    assert run("start_server.sh", "--demo", SERVER__RELOAD="true").returncode == 0
    good = config.read_text()
    config.write_text(good + "nonsense: 1\n")
    wait_for(lambda: "nonsense: unknown key" in (project / "qwen_server.log").read_text())
    assert not is_healthy(port)
    config.write_text(good)
    wait_for(lambda: is_healthy(port))


@pytest.mark.parametrize(
    ("reload", "number"),
    [("false", signal.SIGINT), ("true", signal.SIGINT), ("false", signal.SIGHUP), ("true", signal.SIGHUP)],
)
def test_in_front_ctrl_c_or_a_closed_terminal_ends_it_cleanly(
    project: Path, run: Run, port: int, reload: str, number: signal.Signals
) -> None:
    environ = server_environment(port, SERVER__RELOAD=reload)
    with subprocess.Popen(
        ["bash", "start_server.sh", "--demo", "--foreground"],
        cwd=project,
        env=environ,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(lambda: is_healthy(port))
        assert "running already" in run("start_server.sh", "--demo").stdout
        os.killpg(process.pid, number)  # what a terminal does: everybody in front gets it
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert "Traceback" not in said
    assert processes_in(project) == set()
    assert "no server is running" in run("stop_server.sh").stdout


def test_in_front_ctrl_c_while_the_engine_begins_to_load_ends_it_cleanly(project: Path, port: int) -> None:
    with subprocess.Popen(
        ["bash", "start_server.sh", "--demo", "--foreground"],
        cwd=project,
        env=server_environment(port),
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(lambda: processes_in(project, "spawn_main"))
        os.killpg(process.pid, signal.SIGINT)  # the engine's own code does not run yet
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "ERROR" not in said
    assert processes_in(project) == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_work_in_hand_is_finished_and_new_work_refused(port: int, tmp_path: Path, number: signal.Signals) -> None:
    images = [encode(scene(frame, 196, 336)) for frame in range(3)]
    body = {"shots": [shot(number, images=images) for number in range(2)]}
    environ = server_environment(port)
    with (
        running_server(environ, port, tmp_path / "log") as (url, process),
        httpx.Client(base_url=url, headers=AUTH, timeout=PATIENCE_SECONDS) as client,
        ThreadPoolExecutor() as pool,
    ):
        with engine_standing_still(process):
            accepted = [pool.submit(client.post, "/analyze_batch", json=body) for _ in range(3)]
            wait_for(lambda: 'qwen_stage_seconds_count{stage="receive"} 3.0' in client.get("/metrics").text)
            process.send_signal(number)
            wait_for(lambda: client.get("/health").json()["status"] == "draining")
            # A connection of its own: a new client too must be told, not turned away at the door.
            refused = httpx.post(f"{url}/analyze", json=shot(), headers=AUTH, timeout=PATIENCE_SECONDS)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:qwen-shots:error:draining")
        assert int(refused.headers["Retry-After"]) > 0
        for answer in accepted:
            assert answer.result().status_code == 200
            assert [row["shot_id"] for row in answer.result().json()["results"]] == [0, 1]
        assert process.wait(timeout=PATIENCE_SECONDS) == 0


def test_a_stop_that_runs_out_of_time_answers_everybody_and_ends_in_order(port: int, tmp_path: Path) -> None:
    # 10 requests of 10 shots of 10 frames: much that would have to be prepared, for an engine that stands still.
    images = [encode(scene(frame, 392, 672)) for frame in range(10)]
    body = {"shots": [shot(number, images=images) for number in range(10)]}
    environ = server_environment(port, SERVER__DRAIN_TIMEOUT="1")
    with (
        running_server(environ, port, tmp_path / "log") as (url, process),
        httpx.Client(base_url=url, headers=AUTH, timeout=PATIENCE_SECONDS) as client,
        ThreadPoolExecutor(10) as pool,
        engine_standing_still(process),
    ):
        accepted = [pool.submit(client.post, "/analyze_batch", json=body) for _ in range(10)]
        wait_for(lambda: "qwen_queue_shots 0.0" not in client.get("/metrics").text)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        statuses = {answer.result().status_code for answer in accepted}
        assert process.wait(timeout=PATIENCE_SECONDS) == 0
        assert time.monotonic() - began < 20  # 4 on a quiet machine; all that work would take a minute
    assert statuses <= {200, 503}
    assert 503 in statuses
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("reload", ["false", "true"])
def test_a_killed_server_leaves_no_process(run: Run, project: Path, reload: str) -> None:
    assert run("start_server.sh", "--demo", SERVER__RELOAD=reload).returncode == 0
    os.kill(int((project / ".qwen_server.pid").read_text().split()[0]), signal.SIGKILL)
    wait_until_nothing_runs(project)


def test_a_server_that_is_killed_while_it_loads_leaves_no_process(project: Path, port: int) -> None:
    with subprocess.Popen(
        ["bash", "start_server.sh", "--demo", "--foreground"], cwd=project, env=server_environment(port)
    ) as process:
        wait_for(lambda: processes_in(project, "spawn_main"))
        process.kill()
    wait_until_nothing_runs(project)
