"""The machine that runs the benchmarks: its cores, their use, and a description of it.

Servers run on the first half of the cores, the load on the second, both with real-time priority where that is
permitted. One benchmark runs at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import importlib.metadata
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
SERVER_PRIORITY, LOAD_PRIORITY = 10, 10
"""Priorities of the real-time scheduler."""
PR_SET_PDEATHSIG = 1


def prepare() -> None:
    """Wait for other benchmarks, raise the limit of open files, and make SIGTERM stop all servers."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    _wait_for_the_machine()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for wanted in (200_000, hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return


@functools.cache
def _wait_for_the_machine() -> int:
    """Take and keep a lock, so that two benchmarks never run at once and measure each other."""
    lock = os.open(os.path.join(tempfile.gettempdir(), "pyryrelay-bench.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for another benchmark to end", file=sys.stderr, flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


@functools.cache
def cores() -> tuple[set[int], set[int]]:
    """Return the cores for the servers and for the load. They are the same if there is only one."""
    available = sorted(os.sched_getaffinity(0))
    middle = max(1, len(available) // 2)
    return set(available[:middle]), set(available[middle:] or available)


def pin(to: set[int], priority: int) -> None:
    """Pin this process to cores, with real-time priority if that is permitted."""
    os.sched_setaffinity(0, to)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))


@functools.cache
def pin_load() -> None:
    """Pin this process, which generates the load, to its cores. Repeated calls do nothing."""
    pin(cores()[1], LOAD_PRIORITY)


def die_with_parent() -> None:
    """Kill this child process when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def pin_server() -> None:
    """Prepare the process of a server; called before it runs."""
    die_with_parent()
    pin(cores()[0], SERVER_PRIORITY)


def program(name: str) -> str | None:
    """Return the path of a program; None if it is not installed."""
    return shutil.which(name, path=SYSTEM_PATH)


def machine() -> str:
    """Describe the hardware and software of the measurement, without host names."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("twisted", "autobahn")]
    for name in ("nginx", "haproxy"):
        if path := program(name):
            said = subprocess.run([path, "-v"], capture_output=True, text=True, check=False)
            found = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
            versions.append(f"{name} {found[0] if found else '?'}")
    cpu = f"{len(cores()[0] | cores()[1])} cores, {model[1] if model else platform.machine()}"
    return f"{cpu}; Linux {platform.release()}; Python {platform.python_version()}, {', '.join(versions)}"


def _version(name: str) -> str:
    return importlib.metadata.version(name)
