"""The server's process: how many others read its requests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.process import how_many
from settings import Settings, load_settings


def settings(asked: int) -> Settings:
    return load_settings(environ={"QWEN_SERVER__SERVER__HTTP_PROCESSES": str(asked)})


@pytest.fixture(autouse=True)
def without_a_quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("processes.OWN_CGROUPS", tmp_path / "none")


@pytest.mark.parametrize(("cores", "processes"), [(1, 1), (2, 1), (15, 1), (16, 2), (31, 3), (32, 4), (128, 4)])
def test_processes_follow_the_cores_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert how_many(settings(0)) == processes
    assert how_many(load_settings(environ={})) == processes, "it is what nobody asks for otherwise"
    assert how_many(settings(5)) == 5


def test_a_system_that_tells_no_affinity_tells_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 24)
    assert how_many(settings(0)) == 3
