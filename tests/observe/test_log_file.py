"""The log file of twistd: moved by other programs, rotated by itself, given to another user."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.capture import captured

from pyryrelay.observe.log_file import RelayLogFile, path_of_log

Opened = Callable[[Path], RelayLogFile]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the log."""
    return tmp_path / "relay.log"


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Open log files, and close them at the end."""
    files: list[Any] = []

    def at(path: Path) -> RelayLogFile:
        file = RelayLogFile.at(path)
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
