"""What every process of the server is given: cores, open files, signals."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import processes
from tests.helpers import ROOT

CORES = 64


@pytest.fixture
def cgroups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty tree of control groups, on a machine of 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)), raising=False)
    monkeypatch.setattr(processes, "OWN_CGROUPS", tmp_path / "self")
    monkeypatch.setattr(processes, "CGROUPS", tmp_path / "tree")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "max 100000\n"}, CORES),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "100000000 100000\n"}, CORES),
        ("0::/pods/one\n", {"pods/cpu.max": "800000 100000\n", "pods/one/cpu.max": "max 100000\n"}, 8),
        ("0::/pods/one\n", {"pods/cpu.max": "800000 100000\n", "pods/one/cpu.max": "100000 50000\n"}, 2),
        ("0::/../other\n", {"cpu.max": "300000 100000\n"}, 3),
        (
            "5:memory:/\n4:cpu,cpuacct:/docker/1\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            2,
        ),
        (
            "4:cpuacct,cpu:/slice\n",
            {"cpu/slice/cpu.cfs_quota_us": "60000\n", "cpu/slice/cpu.cfs_period_us": "20000\n"},
            3,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, CORES),
        ("4:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, CORES),
        ("0::/\n", {}, CORES),
    ],
)  # fmt: skip
def test_a_quota_counts_as_cores(cgroups: Path, groups: str, files: dict[str, str], cores: int) -> None:
    write(cgroups / "self", groups)
    for name, text in files.items():
        write(cgroups / "tree" / name, text)
    assert processes.usable_cores() == cores


@pytest.mark.usefixtures("cgroups")
def test_a_system_without_control_groups() -> None:
    assert processes.usable_cores() == CORES


def limits_of(soft: int, hard: int) -> tuple[int, int]:
    """What a process that begins with these limits of open files ends up with."""
    code = "import processes as p, resource as r; p.allow_many_files(); print(*r.getrlimit(r.RLIMIT_NOFILE))"
    command = ["bash", "-c", f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$0" "$@"', sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    now_soft, now_hard = map(int, ran.stdout.split())
    return now_soft, now_hard


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    assert limits_of(64, 512) == (512, 512)
    assert limits_of(512, 512) == (512, 512)


def test_a_limit_that_the_system_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(_: int, limits: tuple[int, int]) -> None:
        if limits[0] > 10_240:
            raise ValueError("current limit exceeds maximum limit")  # what macOS says
        taken.append(limits)

    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", take)
    processes.allow_many_files()
    assert taken == [(10_240, resource.RLIM_INFINITY)]


# Prints MiB: of blocks, what is still resident once nine of ten are freed, and once they are returned.
LEAVE_GAPS = """
import numpy as np, psutil
from processes import return_freed_memory

def resident():
    return psutil.Process().memory_info().rss >> 20

np.ones(30 << 17)  # glibc takes blocks up to the largest that was ever freed from its heap
before = resident()
blocks = [np.ones(1 << 17) for _ in range(200)]
blocks = blocks[9::10]
freed = resident()
return_freed_memory()
print(freed - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="how glibc's allocator is")
def test_freed_memory_is_returned_to_the_system() -> None:
    ran = subprocess.run([sys.executable, "-c", LEAVE_GAPS], cwd=ROOT, capture_output=True, text=True, check=True)
    freed, returned = map(int, ran.stdout.split())
    assert freed > 150
    assert 20 <= returned < 50


def test_a_system_whose_allocator_returns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    processes.return_freed_memory()


def test_a_closing_terminal_asks_for_a_stop_unless_that_is_to_be_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert processes.stop_signals() == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert processes.stop_signals() == [signal.SIGINT, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)
