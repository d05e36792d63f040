"""Signals at every moment of the start and of the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import (
    DEADLINE_S,
    LOCALHOST,
    answers,
    assert_clean,
    environment,
    reserve_port,
    twistd,
    until,
)
from tests.end_to_end.service_manager import notified

REACTORS = pytest.mark.parametrize("reactor", ["epoll", "asyncio"])
RUNS = 5


@REACTORS
@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("SIGHUP", "options"),
        ("SIGHUP", "start"),
        ("SIGHUP", "end"),
        ("SIGTERM", "start"),
        ("SIGTERM", "end"),
        ("SIGINT", "start"),
    ],
)
def test_a_signal_at_any_moment(name: str, phase: str, reactor: str, tmp_path: Path) -> None:
    """With the port open SIGTERM and SIGINT end it in order; SIGHUP never ends it once options are read.

    A SIGHUP during the start causes a reload after it, and no further signal changes the exit code of an end, 0.
    """
    with reserve_port() as held:
        endpoint = f"tcp:{held.getsockname()[1]}:interface={LOCALHOST}"
        program = (sys.executable, "-m", "tests.end_to_end.signalled", name, phase, str(RUNS), tmp_path, reactor)
        done = subprocess.run(
            [*program, "--listen", endpoint, "--admin-listen="],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=15 * DEADLINE_S,
            check=True,
        )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == RUNS
    for outcome in outcomes:
        assert outcome["of"] > RUNS
        assert (outcome["code"], outcome["pid_file"]) == (0, False), outcome
        assert_clean(outcome["log"])
        if name == "SIGHUP" and phase != "end":
            assert outcome["log"].count("reloaded, changed: nothing") == 1


@REACTORS
def test_signals_to_a_daemon_that_starts(reactor: str, tmp_path: Path) -> None:
    """From its first moment a daemon reloads at SIGHUP and ends in order at SIGTERM."""
    pid_file, log_file = tmp_path / "relay.pid", tmp_path / "relay.log"
    with reserve_port() as held:
        port = held.getsockname()[1]
        options = (f"--pidfile={pid_file}", f"--logfile={log_file}", f"--rundir={tmp_path}", f"--reactor={reactor}")
        command = [twistd(), *options, "pyryrelay", "--listen", f"tcp:{port}:interface={LOCALHOST}", "--admin-listen="]
        parent = subprocess.Popen(command, env=environment())
        # Without the pauses of `until`, so that the signals arrive while it starts.
        end = time.monotonic() + DEADLINE_S
        while not (pid_file.exists() and (text := pid_file.read_text(encoding="ascii"))):
            assert time.monotonic() < end, "it writes its pid file"
        os.kill(int(text), signal.SIGHUP)
        assert parent.wait(DEADLINE_S) == 0
        until(lambda: "reloaded, changed: nothing" in log_file.read_text(encoding="utf-8"), "it reloads")
        assert answers(port)
        os.kill(int(text), signal.SIGTERM)
        until(lambda: not pid_file.exists(), "it ends and takes its pid file along")
        until(lambda: "Server Shut Down" in log_file.read_text(encoding="utf-8"), "it ends in order")
    assert_clean(log_file.read_text(encoding="utf-8"))


def test_systemd_is_told(start_relay: StartRelay) -> None:
    """systemd is notified when the relay listens, and when it begins to stop."""
    with notified() as (systemd, launch):
        relay = start_relay(launch=launch)
        assert systemd.recv(100) == b"READY=1"
        relay.stop()
        assert systemd.recv(100) == b"STOPPING=1"
