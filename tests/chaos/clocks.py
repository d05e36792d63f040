"""Wall clocks of processes that are wrong, and that are set while they run. Times are seconds."""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

import pytest

__all__ = ["DAY_S", "Clock", "library", "needs_compiler", "right_time"]

DAY_S: Final = 86_400.0
"""By how much clocks of instances are set: a run is much shorter, so the right time can be told from a wrong one."""
_SOURCE: Final = Path(__file__).with_name("clock.c")
_COMPILER: Final = shutil.which("cc")
needs_compiler = pytest.mark.skipif(_COMPILER is None, reason="the command 'cc' is missing (Debian: gcc)")


@functools.cache
def library(folder: Path) -> Path:
    """Compile ``clock.c`` into a folder; return the library to be loaded first."""
    assert _COMPILER is not None, "a C compiler (cc) is needed to shift clocks"
    path = folder / "clock.so"
    command = [_COMPILER, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(path), str(_SOURCE)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return path


class Clock:
    """The wall clock of processes that get `environment`. Their monotonic clocks are the machine's."""

    def __init__(self, folder: Path, name: str, shift_s: float = 0.0) -> None:
        self._path = folder / f"{name}.clock"
        self._path.write_bytes(bytes(8))
        self.environment = {"CLOCK_SHIFT_FILE": str(self._path), "LD_PRELOAD": str(library(folder))}
        self.shift(shift_s)

    def shift(self, shift_s: float) -> None:
        """Set it, so many seconds after the right time from now on."""
        # The file is mapped: it must be written in place.
        with self._path.open("r+b") as file:
            file.write(struct.pack("=q", round(shift_s * 1e6)))


def right_time(wall_s: float, now_s: float) -> float:
    """Return the time of a line of a log that was written by a clock that may have been days away."""
    return wall_s - DAY_S * round((wall_s - now_s) / DAY_S)
