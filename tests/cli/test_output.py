"""Output to a pipe whose reader has closed it: `twistd pyryrelay --help | head` ends quietly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
_START = "from pyryrelay.start.twistd import Options; Options(environ={}).parseOptions"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["--check"]], ids=lambda arguments: arguments[0])
def test_a_closed_pipe_ends_quietly(arguments: list[str]) -> None:
    """A reader that closes the pipe early causes neither a traceback nor another exit code."""
    reading, writing = os.pipe()
    os.close(reading)
    if arguments == ["--check"]:
        arguments = ["--check", "--listen", "tcp:0", "--admin-listen", "", "--jail-file", ""]
    command = [sys.executable, "-c", f"{_START}({arguments!r})"]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=env, check=False)
    os.close(writing)
    assert (done.returncode, b"Traceback" in done.stderr, b"BrokenPipe" in done.stderr) == (0, False, False)
