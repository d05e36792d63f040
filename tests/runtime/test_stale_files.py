"""Stale pid files, sockets and locks are told from those that are in use."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyryrelay.runtime import stale_files
from pyryrelay.runtime.stale_files import PidFile, remove_stale_socket

US = str(os.getpid())
HOUR_S = 3600.0

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells when a process began")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a path for a pid file."""
    return tmp_path / "twistd.pid"


@pytest.fixture(scope="module")
def other() -> Iterator[int]:
    """Return the number of another living process."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate()


def written(path: Path, text: str, age_s: float = 0.0) -> PidFile:
    """Return a pid file that was written some time ago."""
    path.write_text(text)
    when = time.time() - age_s
    os.utime(path, (when, when))
    return PidFile(path)


# Pid files


def test_our_own_number_in_the_file(path: Path) -> None:
    """A file with this process's number is stale, since this process has not written it."""
    assert written(path, US).is_stale()


@needs_proc
def test_a_process_that_is_younger_than_the_file_did_not_write_it(path: Path, other: int) -> None:
    """A file that is older than the process with its number is stale, as in a container."""
    assert written(path, str(other), HOUR_S).is_stale()
    assert not written(path, str(other), -HOUR_S).is_stale()


def test_a_process_of_unknown_age_may_have_written_it(path: Path, other: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the age of a process is unknown, the file is left to twistd."""
    monkeypatch.setattr(stale_files, "started_at", lambda pid: None)
    assert not written(path, str(other), HOUR_S).is_stale()


@needs_proc
def test_when_a_process_began(other: int) -> None:
    """The start of a process is a wall-clock time, or None for a number that no process has."""
    began = stale_files.started_at(other)
    assert began is not None
    assert time.time() - HOUR_S < began <= time.time()
    assert stale_files.started_at(2**22 + 1) is None


@pytest.mark.parametrize("text", ["garbage", "-7", "12 34", "\xb2"])
def test_what_is_no_pid_file_is_left_alone(path: Path, text: str) -> None:
    """A file that holds no number is left alone, and twistd refuses to start."""
    assert not written(path, text, HOUR_S).is_stale()


@pytest.mark.parametrize("text", ["", "\n", "\0\0\0\0"])
def test_an_empty_file_is_one_that_a_crash_left(path: Path, text: str) -> None:
    """An empty file is removed, since twistd would refuse it for ever."""
    assert written(path, text).is_stale()


def test_a_file_that_is_being_written(path: Path, other: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has been empty for a moment only is left alone."""
    file = written(path, "")
    monkeypatch.setattr(time, "sleep", lambda seconds: written(path, str(other), -HOUR_S))
    assert not file.is_stale()


def test_no_file(path: Path) -> None:
    """Where there is no file, or a folder or FIFO, no process holds it and nothing is removed."""
    for is_folder in (False, True):
        if is_folder:
            path.mkdir()
        assert not PidFile(path).is_stale()
        assert PidFile(path).owner() is None
        assert not PidFile(path).remove()
    os.mkfifo(path / "fifo")
    assert not PidFile(path / "fifo").is_stale()


@contextmanager
def held(path: Path) -> Iterator[str]:
    """Run a process that holds its pid file as a relay does, and return its number."""
    program = (
        "import os, sys; from pathlib import Path; from pyryrelay.runtime.stale_files import PidFile\n"
        "path = Path(sys.argv[1]); path.write_text(str(os.getpid())); file = PidFile(path); file.lock()\n"
        "print(flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, path],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        yield str(process.pid)
    finally:
        process.communicate()


def test_a_held_file_is_in_use(path: Path) -> None:
    """A locked file is in use, whatever its times; once the process is gone, the file is stale."""
    with held(path) as pid:
        os.utime(path, (0, 0))
        assert not PidFile(path).is_stale()
        assert PidFile(path).owner() == int(pid)
        assert path.read_text() == f"{pid}\n"
    file = PidFile(path)
    assert file.owner() is None
    assert file.is_stale()
    assert file.remove()
    assert not path.exists()


def test_a_number_that_was_locked_is_dead_without_the_lock(path: Path, other: int) -> None:
    """A file that was locked is stale without the lock, whatever process has its number."""
    assert written(path, f"{other}\n", -HOUR_S).is_stale()


@pytest.mark.parametrize("text", ["1", "", f"{US}0"], ids=["another", "none", "longer"])
def test_only_the_own_file_is_held(path: Path, text: str) -> None:
    """A file of another process is not locked, and links are not followed."""
    written(path, text).lock()
    assert path.read_text() == text
    link = path.with_name("link")
    path.write_text(US)
    link.symlink_to(path)
    PidFile(link).lock()
    assert path.read_text() == US
    PidFile(path.with_name("missing")).lock()


def test_a_file_that_is_looked_at_elsewhere(path: Path) -> None:
    """A file that another process has locked is not held and not marked."""
    path.write_text(US)
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        PidFile(path).lock()
    assert path.read_text() == US


# Sockets


@pytest.fixture
def sock(tmp_path: Path) -> Path:
    """Return a path for a socket."""
    return tmp_path / "relay.sock"


def lock_of(path: Path) -> Path:
    """Return the path of Twisted's lock for a socket."""
    return path.with_name(f"{path.name}.lock")


def bound(path: Path) -> socket.socket:
    """Make a socket file that may or may not be listened on."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.fspath(path))
    return server


def test_a_socket_without_its_lock(sock: Path) -> None:
    """A socket without a lock on which no process listens is removed."""
    bound(sock).close()
    assert remove_stale_socket(sock)
    assert not sock.exists()
    assert not remove_stale_socket(sock)


@pytest.mark.parametrize("is_ours", [False, True])
def test_a_socket_with_its_lock(sock: Path, other: int, is_ours: bool) -> None:
    """A stale socket is removed with its lock, whatever number is in it."""
    bound(sock).close()
    lock_of(sock).symlink_to(US if is_ours else str(other))
    assert remove_stale_socket(sock)
    assert os.listdir(sock.parent) == []


def test_a_socket_that_is_in_use(sock: Path) -> None:
    """A socket in use is left alone with its lock, even with a full queue."""
    lock_of(sock).symlink_to(US)
    with bound(sock) as server:
        server.listen(0)
        assert not remove_stale_socket(sock)
        assert not remove_stale_socket(sock)
    assert sock.is_socket()
    assert lock_of(sock).is_symlink()


def test_a_socket_that_is_about_to_be_listened_on(sock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is bound and not listened on yet is left alone."""
    with bound(sock) as server:
        monkeypatch.setattr(time, "sleep", lambda seconds: server.listen())
        assert not remove_stale_socket(sock)


def test_a_lock_without_its_socket(sock: Path, other: int) -> None:
    """A lock without a socket counts while its process may live."""
    lock_of(sock).symlink_to(str(other))
    assert not remove_stale_socket(sock)
    os.utime(lock_of(sock), (1.0, 1.0), follow_symlinks=False)
    assert remove_stale_socket(sock)
    lock_of(sock).symlink_to(US)
    assert remove_stale_socket(sock)
    assert os.listdir(sock.parent) == []


def test_what_is_no_socket_is_left_alone(sock: Path) -> None:
    """Other files, sockets of another kind and locks that are not Twisted's are left alone."""
    sock.write_text("text")
    lock_of(sock).symlink_to("elsewhere")
    assert not remove_stale_socket(sock)
    sock.unlink()
    assert not remove_stale_socket(sock)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(os.fspath(sock))
        assert not remove_stale_socket(sock)
    assert sorted(os.listdir(sock.parent)) == ["relay.sock", "relay.sock.lock"]


def test_a_pid_file_that_changes_hands(tmp_path: Path) -> None:
    """The file has the number and the lock of the process that took it over."""
    path = tmp_path / "pid"
    path.write_text(str(os.getpid()))
    before, after = PidFile(path), PidFile(path)
    before.lock()
    assert after.owner() == os.getpid()
    before.give_up()
    before.give_up()
    assert after.owner() is None
    after.take_over()
    assert path.read_text() == f"{os.getpid()}\n"
    assert before.owner() == os.getpid()
    after.give_up()
