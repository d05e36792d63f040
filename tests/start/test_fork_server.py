"""The program that workers are forked from."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from pyryrelay.start import fork_server
from pyryrelay.start.fork_server import main
from pyryrelay.workers.starting.fork_server import CONTROL, MODULE
from pyryrelay.workers.starting.greeting import VARIABLE

LOOK = f"""
import os, socket, sys, threading
from pyryrelay.start import fork_server
from pyryrelay.workers.starting import fork_server as inside
inside.serve_forks = lambda control: print("twisted.internet.reactor" in sys.modules, threading.active_count())
os.dup2(socket.socket().detach(), {CONTROL})
print(fork_server.main([str(os.getppid())]))
"""


def test_what_it_loads() -> None:
    """Nothing of it installs a reactor or starts a thread: neither would survive a fork."""
    found = subprocess.run([sys.executable, "-c", LOOK], stdout=subprocess.PIPE, timeout=60, check=True, text=True)
    assert found.stdout.split() == ["False", "1", "0"]


def test_it_loads_nothing_before_it_knows_its_parent() -> None:
    """If its supervisor has ended, it ends within the time that Python needs to start."""
    code = "import sys; import pyryrelay.start.fork_server; print('twisted' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60, check=True, text=True)
    assert found.stdout == "False\n"
    assert fork_server.__name__ == MODULE
    with pytest.raises(SystemExit):
        main(["1"])


def test_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds its supervisor by its environment, and then is what twistd makes of the words."""
    told: list[object] = []

    def run(words: list[str]) -> int:
        told.append(words)
        return 5

    monkeypatch.setattr(fork_server, "end_with_parent", told.append)
    monkeypatch.setattr("pyryrelay.workers.starting.fork_server.serve_forks", lambda control: 9)
    monkeypatch.setattr("pyryrelay.start.run.main_of_twistd", run)
    monkeypatch.setattr(socket, "socket", lambda fileno: told.append(fileno))
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr(os, "environ", {})
    assert main(["77", "--nodaemon", "pyryrelay"]) == 5
    assert told == [77, CONTROL, ["--nodaemon", "pyryrelay"]]
    assert os.environ == {VARIABLE: "77:9"}
