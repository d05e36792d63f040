"""Child processes of real relays, by a relay with the echo room: how they are started, what they have, how they end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import (
    DEADLINE_S,
    LOCALHOST,
    REACTOR,
    Launch,
    Relay,
    assert_clean,
    environment,
    reserve_port,
    until,
)
from tests.support.other_users import NOBODY, needs_python_of_nobody

from pyryrelay.cli.admin_client import AdminClient

PROGRAM = (sys.executable, "-m", "tests.end_to_end.with_room")
TEXT = b'["one"]'


def children(pid: int) -> list[int]:
    """Return the children of a process that have not ended."""
    found = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [child for child in found if state(child)[1:] == [str(pid)]]


def state(pid: int) -> list[str]:
    """Return the parent of a process after its number; nothing if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] == "Z" else [str(pid), fields[1]]


def ask(url: str) -> object:
    """Have the room's child echo something."""
    return AdminClient(url).act("echo", "ask", TEXT, timeout_s=DEADLINE_S)


@pytest.fixture
def relay(start_relay: StartRelay) -> Relay:
    """A relay whose room has a child."""
    return start_relay("--echo-child", launch=Launch(program=PROGRAM))


def admin(relay: Relay) -> str:
    """Return the URL of its admin listener."""
    return f"http://{LOCALHOST}:{relay.admin_port}"


def test_a_child_answers_and_has_nothing_else(relay: Relay) -> None:
    """A child exchanges frames with the relay, and has no listening socket, log or other descriptor of it."""
    assert ask(admin(relay)) == json.loads(TEXT)
    (child,) = children(relay.process.pid)
    folder = Path(f"/proc/{child}/fd")
    kinds = {entry.name: os.readlink(entry).partition(":")[0] for entry in folder.iterdir()}
    assert kinds == {"0": "socket", "1": "/dev/null", "2": "pipe"}
    assert ask(admin(relay)) == json.loads(TEXT)


def test_signals_of_the_terminal_do_not_end_it(relay: Relay) -> None:
    """Control-C and the stop of a systemd unit reach all processes; a child goes on until the relay lets it go."""
    (child,) = children(relay.process.pid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child, number)
    assert ask(admin(relay)) == json.loads(TEXT)
    relay.stop()
    until(lambda: not state(child), "the child ends with the relay")


def test_a_child_that_is_killed_is_reaped(relay: Relay) -> None:
    """Nothing is left of a child that is killed, and the relay goes on."""
    (child,) = children(relay.process.pid)
    os.kill(child, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{child}").exists(), "the child is reaped")
    assert AdminClient(admin(relay)).act("echo", "echo", TEXT) == json.loads(TEXT)


def test_a_child_does_not_outlive_the_relay(tmp_path: Path) -> None:
    """A relay that is killed leaves no child behind."""
    relay = Relay(tmp_path, ("--echo-child",), Launch(program=PROGRAM))
    try:
        (child,) = children(relay.process.pid)
    finally:
        relay.discard()
    until(lambda: not state(child), "the child ends by itself")


@contextlib.contextmanager
def daemon(directory: Path, *options: str) -> Iterator[tuple[int, str]]:
    """Run a relay with the room in the background, and return its pid and the URL of its admin listener."""
    url = f"unix:{directory / 'admin.sock'}"
    pid_file = directory / "relay.pid"
    with reserve_port() as held:
        arguments = ["--pidfile", str(pid_file), "--logfile", str(directory / "log"), "--rundir", str(directory)]
        endpoint = f"tcp:{held.getsockname()[1]}:interface={LOCALHOST}"
        arguments += ["--reactor", REACTOR, *options, "pyryrelay", "--echo-child", "--listen", endpoint]
        subprocess.run([*PROGRAM, *arguments, "--admin-listen", url], env=environment(), timeout=DEADLINE_S, check=True)
        pid = int(pid_file.read_text(encoding="ascii"))
        try:
            yield pid, url
        finally:
            os.kill(pid, signal.SIGTERM)
            until(lambda: not state(pid), "the daemon ends")
    assert_clean((directory / "log").read_text(encoding="utf-8"))


def test_children_of_a_daemon() -> None:
    """In the background, children work in the relay's folder and end with it."""
    # Paths of UNIX-domain sockets are short.
    with tempfile.TemporaryDirectory(dir="/tmp") as name, daemon(Path(name)) as (pid, url):
        assert ask(url) == json.loads(TEXT)
        (child,) = children(pid)
        assert os.readlink(f"/proc/{child}/cwd") == name
    assert not state(child)


@needs_python_of_nobody
def test_children_have_the_user_of_the_relay() -> None:
    """With --uid, children have no privileges either."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chown(name, NOBODY.pw_uid, NOBODY.pw_gid)
        with daemon(Path(name), "--uid", "nobody", "--gid", str(NOBODY.pw_gid)) as (pid, url):
            assert ask(url) == json.loads(TEXT)
            (child,) = children(pid)
            status = Path(f"/proc/{child}/status").read_text(encoding="utf-8")
            assert f"Uid:\t{NOBODY.pw_uid}\t{NOBODY.pw_uid}\t{NOBODY.pw_uid}\t{NOBODY.pw_uid}" in status
