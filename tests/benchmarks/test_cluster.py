"""How the benchmarks of clusters count what several servers cost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from _cluster import Together
from _rig import Server


def test_several_servers_count_as_one(tmp_path: Path) -> None:
    """Connections go to one of them, and the CPU time is that of all."""
    busy = subprocess.Popen(
        [sys.executable, "-c", "sum(range(3_000_000)); print(flush=True); input()"], stdin=-1, stdout=-1
    )
    with busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        first, second = Server(os.getpid(), 1, tmp_path), Server(busy.pid, 2, tmp_path, admin_port=3)
        both = Together(second, first, second)
        assert (both.port, both.admin_port, both.pids[0], both.pids[-1]) == (2, 3, os.getpid(), busy.pid)
        assert both.cpu_s() >= second.cpu_s() > 0
        busy.communicate(b"\n")
