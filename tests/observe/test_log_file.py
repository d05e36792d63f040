"""The log file of twistd: moved by other programs, rotated by itself, given to another user."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.capture import captured

from pyryrelay.observe.log_file import RelayLogFile, path_of_log

Opened = Callable[..., RelayLogFile]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the log."""
    return tmp_path / "relay.log"


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Open log files, and close them at the end."""
    files: list[Any] = []

    def at(path: Path, **bounds: int | None) -> RelayLogFile:
        file = RelayLogFile.at(path, **bounds)
        files.append(file)
        return file

    yield at
    for file in files:
        file.close()


def write(file: Any, text: str) -> None:
    """Log a line."""
    file.write(text)


def test_rotation(path: Path, opened: Opened) -> None:
    """On request and when the file is full, it is renamed with a number, and a new file is opened."""
    file = opened(path)
    write(file, "one")
    file.rotate_or_log()
    write(file, "two")
    file.size = 1_000_000
    write(file, "three")
    texts = [(path.parent / name).read_text() for name in ("relay.log.2", "relay.log.1", "relay.log")]
    assert texts == ["one", "two", "three"]


class Disk:
    """Takes the place of an open file whose disk has ``room_bytes`` left."""

    def __init__(self, file: Any) -> None:
        self.file, self.room_bytes = file, 0

    def write(self, data: bytes) -> int:
        """Write what fits, as the system does."""
        if not self.room_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = int(self.file.write(data[: self.room_bytes]))
        self.room_bytes -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_full_disk(path: Path, opened: Opened) -> None:
    """What fits is written, the next line begins on its own, and one line says how many were lost."""
    file = opened(path)
    file._file = disk = Disk(file._file)
    with captured() as log:
        disk.room_bytes = 10
        write(file, "first\nsecond\n")
        write(file, "third\nfourth\n")
        disk.room_bytes = 3
        write(file, "fifth\n")
        assert log.texts == []
        disk.room_bytes = 1000
        write(file, "sixth\n")
        write(file, "seventh\n")
    assert path.read_text() == "first\nseco\nfi\nsixth\nseventh\n"
    assert log.texts == ["4 lines of the log were lost: No space left on device"]
    assert file.size == len(path.read_bytes())


def test_a_full_disk_that_is_cleared_by_truncating_the_log(path: Path, opened: Opened) -> None:
    """The log begins with a whole line."""
    file = opened(path)
    file._file = disk = Disk(file._file)
    disk.room_bytes = 3
    write(file, "first\n")
    os.truncate(path, 0)
    disk.room_bytes = 1000
    write(file, "second\n")
    assert path.read_text() == "second\n"


def old_logs(path: Path) -> list[str]:
    """Return the names of all files beside the log."""
    return sorted(found.name for found in path.parent.iterdir() if found != path)


def test_old_files_are_removed(path: Path, opened: Opened) -> None:
    """So many old files are kept, the latest ones, and files of others are left alone."""
    for number in range(1, 8):
        (path.parent / f"relay.log.{number}").write_text(f"old {number}")
    for name in ("relay.log.20261128", "relay.log.gz", "relay.log.2.gz", "other.log.9"):
        (path.parent / name).write_text("another's")
    file = opened(path, keep=3)
    write(file, "current")
    file.rotate_or_log()
    assert old_logs(path) == [
        "other.log.9",
        "relay.log.1",
        "relay.log.2",
        "relay.log.2.gz",
        "relay.log.20261128",
        "relay.log.3",
        "relay.log.gz",
    ]
    texts = [(path.parent / f"relay.log.{number}").read_text() for number in (1, 2, 3)]
    assert texts == ["current", "old 1", "old 2"]


def test_all_old_files_can_be_kept(path: Path, opened: Opened) -> None:
    """Without a bound nothing is removed."""
    file = opened(path)
    for _ in range(30):
        file.rotate_or_log()
    assert len(old_logs(path)) == 30


@pytest.mark.parametrize(("max_bytes", "rotates"), [(10_000, True), (None, False)])
def test_the_size_of_a_file(path: Path, opened: Opened, max_bytes: int | None, rotates: bool) -> None:
    """A new file begins when the file is full, unless that is left to others."""
    file = opened(path, max_bytes=max_bytes)
    for _ in range(11):
        write(file, "x" * 1000)
    assert (old_logs(path) == ["relay.log.1"]) == rotates


def test_a_file_that_is_truncated(path: Path, opened: Opened) -> None:
    """After logrotate's ``copytruncate``, the log goes on at the beginning of the file."""
    file = opened(path)
    write(file, "before\n")
    os.truncate(path, 0)
    write(file, "after\n")
    assert path.read_bytes() == b"after\n"
    file.rotate_or_log()
    write(file, "new\n")
    os.truncate(path, 0)
    write(file, "newer\n")
    assert path.read_bytes() == b"newer\n"


@pytest.mark.parametrize("is_there", [False, True])
def test_a_file_that_was_moved_away(path: Path, opened: Opened, is_there: bool) -> None:
    """After the file was moved, the next request or rotation opens the old name, even if a file exists there."""
    file = opened(path)
    write(file, "before")
    path.rename(path.with_name("old"))
    if is_there:
        path.write_text("made ")
    file.rotate_or_log()
    write(file, "after")
    assert path.with_name("old").read_text() == "before"
    assert path.read_text() == ("made after" if is_there else "after")
    assert sorted(os.listdir(path.parent)) == ["old", "relay.log"]


@pytest.mark.parametrize("moved", [False, True])
def test_no_line_is_lost_where_it_cannot_be_rotated(
    path: Path, opened: Opened, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed rotation goes on in the open file, and is tried again when as many bytes were written."""
    file = opened(path)
    old = path
    if moved:
        old = path.rename(path.with_name("old"))
        path.mkdir()
    else:
        monkeypatch.setattr(os, "access", lambda *arguments, **others: False)
    file.size = 2_000_000
    for _ in range(2):
        write(file, "x")
    assert old.read_text() == "xx"
    assert file.size == 2
    with captured() as log:
        file.rotate_or_log()
    (line,) = log.texts
    assert line.startswith(f"--logfile (of twistd): cannot start a new {str(path)!r}: ")


def test_a_rotation_that_fails_half_way(path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation that fails after Twisted closed the file opens it again."""
    file = opened(path)

    def rename(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", rename)
    file.rotate()
    write(file, "x")
    assert path.read_text() == "x"


def test_it_is_handed_over_unless_it_is_a_link(path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is given to the new user, except through a link, which may lead to any file."""
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda fd, uid, gid: owners.append((uid, gid)))
    opened(path).hand_over(7, 8)
    assert owners == [(7, 8)]
    (path.parent / "symlink").symlink_to(path)
    opened(path.parent / "symlink").hand_over(1, 1)
    (path.parent / "hardlink").hardlink_to(path)
    opened(path.parent / "hardlink").hand_over(1, 1)
    assert owners == [(7, 8)]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, None),
        ({"nodaemon": True, "logfile": None}, None),
        ({"nodaemon": False, "logfile": None}, "twistd.log"),
        ({"nodaemon": False, "logfile": "-"}, None),
        ({"nodaemon": True, "logfile": "relay.log"}, "relay.log"),
        ({"nodaemon": True, "logfile": "relay.log", "syslog": True}, None),
        ({"nodaemon": True, "logfile": "relay.log", "logger": object()}, None),
    ],
)
def test_where_twistd_logs_to(options: dict[str, object], name: str | None) -> None:
    """twistd logs to the file that is named, or to a default file in the background, relative to the current folder."""
    assert path_of_log(options) == (None if name is None else Path.cwd() / name)
