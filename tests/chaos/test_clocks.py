"""Wall clocks that are wrong."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.chaos.clocks import DAY_S, Clock, needs_compiler, right_time
from tests.end_to_end.harness import environment

PROGRAM = "import time; print(time.time(), time.monotonic(), flush=True); input(); print(time.time(), flush=True)"


@needs_compiler
def test_a_clock_is_set_while_a_process_runs(tmp_path: Path) -> None:
    """Its monotonic clock stays that of the machine."""
    clock = Clock(tmp_path, "one", 3.0)
    command = [sys.executable, "-c", PROGRAM]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(clock.environment)
    )
    assert process.stdout is not None
    wall, monotonic = map(float, process.stdout.readline().split())
    assert wall == pytest.approx(time.time() + 3.0, abs=2.0)
    assert monotonic == pytest.approx(time.monotonic(), abs=2.0)
    clock.shift(-DAY_S)
    later, _ = process.communicate("\n", 20)
    assert float(later) == pytest.approx(time.time() - DAY_S, abs=2.0)


@pytest.mark.parametrize("days", [-2, -1, 0, 1])
def test_the_right_time_is_found(days: int) -> None:
    """If the clock was whole days away from it."""
    assert right_time(1_000_000.0 + days * DAY_S, 1_001_000.0) == 1_000_000.0
