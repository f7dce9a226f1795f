"""What all processes of the server need: an end with their parent, a name, how many cores they may use, and so on."""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

# Open files that are asked for, the more the better: macOS takes 10,240 at most.
MANY_FILES = (65_536, 10_240)

OWN_CGROUPS = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


def end_with_parent(end: Callable[[], object]) -> None:
    """Call `end`, on a thread, when the process that spawned this one is gone, be it by SIGKILL."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was not made by multiprocessing"

    def wait() -> None:
        parent.join()
        end()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def name_process(name: str) -> None:
    """Name this process for `ps` and `top`, in 15 letters at most; nothing happens where that can't be done."""
    with contextlib.suppress(OSError):  # Linux can
        Path("/proc/self/comm").write_text(name, encoding="ascii")


def stop_signals() -> list[signal.Signals]:
    """The signals that ask for an orderly stop; a closing terminal sends SIGHUP, which `nohup` has a process ignore."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


def keep_hangup_from_the_tracker() -> None:
    """Start multiprocessing's resource tracker with SIGHUP held back; it ignores the other stop signals by itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def allow_many_files() -> None:
    """Raise the limit of open files, for this process and those that it starts: every connection is one.

    The soft limit is often 1,024, on macOS 256. Not every system takes all that its hard limit says.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in MANY_FILES:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if allowed > soft:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
                return


def return_freed_memory() -> None:
    """Return the memory that the C library's allocator has free to the system. Does nothing without glibc.

    glibc keeps freed blocks in its heap, up to 32 MiB each, unless they lie at the heap's end. Blocks of changing sizes
    leave gaps there that the next ones don't fit into, so that the heap grows though no more of it is in use.
    """
    with contextlib.suppress(AttributeError, OSError):  # glibc alone has the function
        ctypes.CDLL(None).malloc_trim(0)


def usable_cores() -> int:
    """Cores that this process may use: a container or `taskset` may give it fewer than the machine has.

    A quota of processor time (`docker --cpus`, a limit of Kubernetes) counts as so many cores, rounded up.
    """
    # Not on macOS and Windows.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min([cores, *map(_quota, _control_groups())]))


def _control_groups() -> Iterator[Path]:
    """The control groups that may limit this process's processor time: its own and those around it."""
    with contextlib.suppress(OSError):  # Linux has them
        for line in OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            root = CGROUPS / "cpu" if controllers else CGROUPS  # versions 1 and 2
            group = root / path.lstrip("/")
            # In a container the path can be that of the host. The container's own group is the root then.
            yield from (each for each in (group, *group.parents) if each.is_relative_to(root))


def _quota(group: Path) -> float:
    """Cores' worth of time that a control group allows; infinite without a limit."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # versions 2 and 1
        with contextlib.suppress(OSError, ValueError):
            quota, period = " ".join((group / name).read_text(encoding="ascii") for name in names).split()
            if int(quota) > 0:
                return int(quota) / int(period)
    return math.inf
