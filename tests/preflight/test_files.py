"""Files that the relay cannot write, and secrets that others can read."""

from __future__ import annotations

import contextlib
import os
import pwd
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import option
from pyryrelay.config.types import OPTIONAL_FILE, SECRET_FILE
from pyryrelay.mounts import Settings
from pyryrelay.preflight.account import Account
from pyryrelay.preflight.files import jail_file, readable_secrets, twistd_folders, unwritable

ME = Account.of({})


def lines(base: Path, options: Mapping[str, Any]) -> list[str]:
    """Return what is found about files that the user of these options cannot write."""
    account = Account.of(options)
    return [str(finding) for finding in (*jail_file(Settings(), base, account), *unwritable(options, account))]


@pytest.mark.parametrize(
    "content", [None, b"", b"no database, and the start moves it aside" * 100], ids=["missing", "empty", "damaged"]
)
def test_jail_files_that_can_be_used(tmp_path: Path, content: bytes | None) -> None:
    """A jail file that is missing, empty or damaged is no problem: the start makes a new one."""
    if content is not None:
        (tmp_path / "jail").write_bytes(content)
    assert list(jail_file(Settings(jail_file="jail"), tmp_path, ME)) == []


def test_jail_files_that_cannot_be_used(tmp_path: Path) -> None:
    """A folder, another program's database and a missing folder are one line each."""
    (tmp_path / "folder").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as database:
        database.execute("CREATE TABLE t (x)")
    for name, said in (
        ("folder", "cannot be used: it is not a regular file"),
        ("other", "cannot be used: it is the database of another program"),
        ("missing/jail", "there is no folder"),
    ):
        (finding,) = jail_file(Settings(jail_file=name), tmp_path, ME)
        line = str(finding)
        assert line.startswith(f"--jail-file {name!r}")
        assert said in line
        assert "in memory only" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a folder that another user may not write to")
def test_a_folder_that_the_relays_user_may_not_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where twistd drops privileges, files that the new user cannot write are reported: the jail's and the pid file."""
    tmp_path.chmod(0o755)
    nobody = pwd.getpwnam("nobody")
    options = {"uid": nobody.pw_uid, "pidfile": str(tmp_path / "relay.pid"), "logfile": str(tmp_path / "relay.log")}
    jail, pid, log = lines(tmp_path, options)
    assert "user nobody may not write to" in jail
    assert "bans are kept in memory only" in jail
    monkeypatch.chdir(tmp_path)
    assert lines(tmp_path, options | {"pidfile": "relay.pid"}) == [jail, pid, log]
    assert jail.endswith("; choose a folder of that user with --rundir of twistd, or another --jail-file")
    assert "may not remove" in pid
    assert f"user nobody may not write to {str(tmp_path)!r}, so 'relay.log' is never rotated" in log
    os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)
    assert lines(tmp_path, options) == []
    os.chown(tmp_path, 0, nobody.pw_gid)
    tmp_path.chmod(0o775)
    assert lines(tmp_path, options) == []


@pytest.mark.parametrize("name", ["rundir", "pidfile", "logfile"])
def test_options_of_twistd_that_would_end_in_a_traceback(tmp_path: Path, name: str) -> None:
    """Folders of twistd's options that are missing are reported; existing ones and values that are no file are not."""
    missing = tmp_path / "missing"
    value = str(missing if name == "rundir" else missing / "x")
    (finding,) = twistd_folders({name: value})
    assert str(finding) == f"--{name} (of twistd): there is no folder {str(missing)!r}; create it: mkdir -p {missing}"
    fine = {"rundir": str(tmp_path), "pidfile": str(tmp_path / "p"), "logfile": "-"}
    assert list(twistd_folders(fine)) == []
    assert list(twistd_folders({"pidfile": None, "logfile": None})) == []


@dataclass(frozen=True, kw_only=True)
class Secretive(SharedSettings):
    """Settings with a secret, and with a file that holds one."""

    password: str = option("", OPTIONAL_FILE, "Secrets", help="A.", example="x", why="B.", secret=True)
    token_file: str = option("", SECRET_FILE, "Secrets", help="A.", example="x", why="B.")


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that every user can enter."""
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


def test_a_secret_that_every_user_can_read(open_folder: Path) -> None:
    """The file of a token, and a configuration file with a secret in it, are found unless they are private."""
    token, file = open_folder / "token", open_folder / "relay.toml"
    for path in (token, file):
        path.write_text("hunter2")
        path.chmod(0o644)
    settings = Secretive.from_sources({"password": "hunter2", "token-file": "token"}, {}, {}, toml_name="relay.toml")
    found = [str(finding) for finding in readable_secrets(settings, open_folder, "relay.toml")]
    why = "every user of this machine can read it; run: chmod 600"
    assert found == [
        f"--token-file 'token': {why} {token}",
        f"--config 'relay.toml', which has password: {why} {file}",
    ]
    assert "hunter2" not in "".join(found)
    elsewhere = Secretive.from_sources({}, {"PYRYRELAY_PASSWORD": "hunter2"}, {}, toml_name="relay.toml")
    assert list(readable_secrets(elsewhere, open_folder, "relay.toml")) == []
    for path in (token, file):
        path.chmod(0o640)
    assert list(readable_secrets(settings, open_folder, "relay.toml")) == []


def test_a_secret_in_a_private_folder(open_folder: Path) -> None:
    """What stands in a folder that others cannot enter is private, and what is missing is none."""
    folder = open_folder / "private"
    folder.mkdir(mode=0o700)
    (folder / "token").touch(mode=0o644)
    assert list(readable_secrets(Secretive(token_file="private/token"), open_folder, "")) == []
    assert list(readable_secrets(Secretive(token_file="missing"), open_folder, "")) == []
