"""Trying endpoints without listening, on real sockets of loopback, and what is reported."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyryrelay.listen.probe import Holder, advice, probe

LOCALHOST = "127.0.0.1"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells who listens")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server((LOCALHOST, 0)) as sock:
        yield sock.getsockname()[1]


@pytest.mark.parametrize(
    "text",
    [
        f"tcp:0:interface={LOCALHOST}",
        r"tcp:0:interface=\:\:1",
        "tcp6:0",
        "ssl:0:privateKey=key.pem",
        "haproxy:tcp:0",
        "unix:relay.sock",
        "systemd:domain=INET:index=0",
    ],
)
def test_what_can_be_listened_on(text: str, tmp_path: Path) -> None:
    """A usable endpoint reports nothing, and nothing is left behind."""
    assert probe(text, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@linux
@pytest.mark.parametrize("text", ["tcp:{}:interface=127.0.0.1", "tcp:{}", "ssl:{}:privateKey=k", r"tcp6:{}"])
def test_a_port_that_is_taken(text: str, taken: int, tmp_path: Path) -> None:
    """A port in use is reported with the process that has it, even for another address of the port."""
    problem = probe(text.format(taken), tmp_path)
    assert problem is not None
    # pytest-xdist changes it if it can.
    name = Path(Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()).name
    assert f"Address already in use: {name!r}" in problem.cause
    assert f"process {os.getpid()}, listens there" in problem.cause
    assert problem.fix == "stop it, or choose another endpoint"


_RELAY = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as sock:
    print(sock.getsockname()[1], flush=True)
    sys.stdin.read()
"""


@linux
def test_a_relay_that_runs_is_recognised(tmp_path: Path) -> None:
    """A running relay is recognized by its command, so that its ports are no problem before a reload."""
    process = subprocess.Popen(
        [sys.executable, "-c", _RELAY, "pyryrelay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        problem = probe(f"tcp:{int(process.stdout.readline())}:interface={LOCALHOST}", tmp_path)
        assert problem is not None
        assert problem.holder is not None
        assert problem.holder.is_relay
        assert problem.holder.pid == process.pid
        assert problem.cause == f"Address already in use: a running pyryrelay, process {process.pid}, listens there"
        process.communicate()


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    """The line for a foreign address says how to find the machine's own."""
    problem = probe("tcp:0:interface=192.0.2.1", tmp_path)
    assert problem is not None
    assert problem.cause == "Cannot assign requested address: no interface of this machine has '192.0.2.1'"
    assert "`ip address`" in problem.fix


def test_a_path_whose_folder_is_missing(tmp_path: Path) -> None:
    """A missing folder is named, with the command that makes it."""
    problem = probe("unix:run/relay.sock", tmp_path)
    assert problem is not None
    assert problem.cause == f"there is no folder {str(tmp_path / 'run')!r}"
    assert problem.fix == f"create it: mkdir -p {tmp_path}/run"


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    """A path that is a file is reported, and the file is kept."""
    (tmp_path / "relay.sock").write_text("mine")
    problem = probe("unix:relay.sock", tmp_path)
    assert problem is not None
    assert "is a file and no socket" in problem.cause


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    """A path that is too long for sockaddr_un, 108 bytes with the final zero, is reported."""
    problem = probe(f"unix:{'x' * 108}", tmp_path)
    assert problem is not None
    assert problem.cause == "its path is longer than 107 bytes"


def test_a_path_that_is_taken_and_one_that_was_left_behind(tmp_path: Path) -> None:
    """A socket in use is reported, and a stale one is not, since the start removes it."""
    path = tmp_path / "relay.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        problem = probe("unix:relay.sock", tmp_path)
        assert problem is not None
        assert problem.cause.startswith("Address already in use: ")
        if sys.platform.startswith("linux"):
            assert problem.holder is not None
            assert problem.holder.pid == os.getpid()
    assert probe("unix:relay.sock", tmp_path) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may listen everywhere")
def test_no_permission_for_real(tmp_path: Path) -> None:
    """A port below 1024 without privileges is reported."""
    problem = probe("tcp:1", tmp_path)
    assert problem is not None
    assert "--uid" in problem.fix


@pytest.mark.parametrize(
    ("text", "error", "cause", "fix"),
    [
        ("tcp:80", PermissionError(errno.EACCES, "Permission denied"), "not listen on port 80", "root with --uid"),
        ("unix:/r/s", PermissionError(errno.EACCES, "Permission denied"), "create files in '/r'", "change its owner"),
        ("unix:/nowhere/s", FileNotFoundError(errno.ENOENT, "No such"), "no folder '/nowhere'", "mkdir -p /nowhere"),
        ("unix:/r/s", "Cannot acquire lock", "'/r/s.lock'", "stop the process that has it"),
        ("tcp:80", OSError(errno.ENOBUFS, "No buffer space"), "No buffer space", "choose another endpoint"),
        ("tcp:80", TypeError("unexpected keyword"), "unexpected keyword", "choose another endpoint"),
    ],
)
def test_advice_fits_the_error(text: str, error: object, cause: str, fix: str) -> None:
    """Each error has a fix of its own."""
    problem = advice(text, error)
    assert cause in problem.cause
    assert fix in problem.fix


def test_a_program_that_cannot_be_seen() -> None:
    """For a process of another user the line says how to find it."""
    problem = advice("tcp:1:interface=127.0.0.1", OSError(errno.EADDRINUSE, "Address already in use"))
    assert problem.cause == "Address already in use: another program listens there"
    assert problem.fix.startswith("`ss -lntxp` shows which, as root; ")
    assert problem.holder == Holder(None, "", False)
