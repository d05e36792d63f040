"""The children that workers share: sockets in a private folder, restarts, and nothing left behind."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.capture import captured
from twisted.internet.task import Clock

from pyryrelay.workers import shared_children as module
from pyryrelay.workers.shared_children import LIVED_S, PREFIX, STALE_S, SharedChildren, remove_stale_folders


class Started:
    """A child process that a test plays."""

    pid = 4711

    def __init__(self, arguments: Sequence[str], ended: Callable[[str], None], inherited: Sequence[int]) -> None:
        self.arguments = tuple(arguments)
        self.ended = ended
        (self.listening,) = inherited
        self.is_closed = False

    def close(self) -> None:
        """Note that it shall end."""
        self.is_closed = True


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a short name, as names of sockets are short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Started]:
    """The children that were started; folders are made in a directory of the test."""
    made: list[Started] = []

    def start(
        reactor: Any, arguments: Sequence[str], received: object, ended: Callable[[str], None], inherited: Sequence[int]
    ) -> Started:
        made.append(Started(arguments, ended, inherited))
        return made[-1]

    monkeypatch.setattr(module, "start_child", start)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return made


def stop(children: SharedChildren, started: list[Started]) -> None:
    """End the children that run."""
    stopped = children.stop()
    for child in started:
        child.ended("exit code 0")
    assert stopped.called


def test_each_child_has_a_socket_in_a_private_folder(started: list[Started], folder: Path) -> None:
    """Only this user may enter the folder, and connections wait until the child accepts them."""
    children = SharedChildren(Clock(), {"writer": ("-m", "a"), "other": ("-m", "b")})
    assert children.addresses == {}
    children.start()
    assert [child.arguments for child in started] == [("-m", "a", "shared"), ("-m", "b", "shared")]
    assert children.pids == {"writer": 4711, "other": 4711}
    (made,) = folder.glob(f"{PREFIX}*")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert children.addresses == {"writer": str(made / "writer"), "other": str(made / "other")}
    with socket.socket(socket.AF_UNIX) as end, socket.socket(fileno=os.dup(started[0].listening)) as listening:
        end.connect(children.addresses["writer"])
        accepted, _ = listening.accept()
        accepted.close()
    stop(children, started)


def test_a_child_that_ends_is_started_again_on_its_socket(started: list[Started]) -> None:
    """At once, and then later and later; one that has lived for long begins anew. Each end is one line in the log."""
    clock = Clock()
    children = SharedChildren(clock, {"writer": ("-m", "a")})
    children.start()
    with captured() as log:
        delays = []
        for _ in range(4):
            started[-1].ended("signal 9")
            assert children.pids == {}
            delays.append(clock.calls[0].getTime() - clock.seconds())
            clock.advance(delays[-1])
    assert delays == [0, 1, 2, 4]
    assert len({child.listening for child in started}) == 1
    assert log.texts[0] == "writer has ended: signal 9; it is started again at once"
    assert len(log.texts) == 4
    clock.advance(LIVED_S)
    started[-1].ended("exit code 1")
    clock.advance(0)
    assert len(started) == 6
    children.stop()
    started[-1].ended("exit code 0")


def test_the_end_leaves_nothing(started: list[Started], folder: Path) -> None:
    """Children are told to end, and the folder goes when they have ended."""
    children = SharedChildren(Clock(), {"writer": ("-m", "a"), "other": ("-m", "b")})
    children.start()
    done: list[object] = []
    children.stop().addCallback(done.append)
    assert all(child.is_closed for child in started)
    assert done == []
    for child in started:
        child.ended("exit code 0")
    assert done == [None]
    assert list(folder.iterdir()) == []


def test_the_end_cancels_a_restart(started: list[Started]) -> None:
    """A child that waits for its start is not started any more."""
    clock = Clock()
    children = SharedChildren(clock, {"writer": ("-m", "a")})
    children.start()
    started[0].ended("signal 9")
    done: list[object] = []
    children.stop().addCallback(done.append)
    clock.advance(60)
    assert done == [None]
    assert len(started) == 1


def test_nothing_to_share_is_nothing_to_do(started: list[Started], folder: Path) -> None:
    """Without children there is no folder."""
    children = SharedChildren(Clock(), {})
    children.start()
    assert list(folder.iterdir()) == []
    done: list[object] = []
    children.stop().addCallback(done.append)
    assert done == [None]


def test_folders_of_killed_supervisors_are_removed(folder: Path) -> None:
    """Those whose sockets nobody listens on; not one in use, one that is being made, or anything else."""
    for name in ("dead", "alive", "new", "old"):
        (folder / f"{PREFIX}{name}").mkdir()
    (folder / f"{PREFIX}file").write_text("")
    (folder / "other").mkdir()
    os.utime(folder / f"{PREFIX}old", (0, 0))
    assert STALE_S > 0
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(folder / f"{PREFIX}alive" / "writer"))
        alive.listen()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(folder / f"{PREFIX}dead" / "writer"))
            dead.listen()
        remove_stale_folders(folder)
        left = {path.name.removeprefix(PREFIX) for path in folder.iterdir()}
    assert left == {"alive", "new", "file", "other"}


def test_a_long_temporary_directory_is_not_used(
    started: list[Started], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of sockets are short; then the folder is in /tmp."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    children = SharedChildren(Clock(), {"writer": ("-m", "a")})
    children.start()
    assert children.addresses["writer"].startswith(f"/tmp/{PREFIX}")
    stopped = children.stop()
    started[0].ended("exit code 0")
    assert stopped.called
    assert not Path(children.addresses["writer"]).parent.exists()
