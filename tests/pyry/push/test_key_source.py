"""Where keys come from: files that nobody else can read, and the environment."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from tests.support.push import key_text

from pyryrelay.pyry.push.credentials import MAX_KEY_BYTES, CredentialsError
from pyryrelay.pyry.push.key_source import load_account


def key_file(tmp_path: Path, mode: int = 0o600, content: str | None = None) -> Path:
    """Return a key file with this mode."""
    path = tmp_path / "fcm.json"
    path.write_text(key_text() if content is None else content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_the_owner(tmp_path: Path, mode: int) -> None:
    """Relative names start at the base."""
    key_file(tmp_path, mode)
    assert load_account("fcm.json", tmp_path, {}).project == "my-project"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o666, 0o601])
def test_a_file_that_others_can_use(tmp_path: Path, mode: int) -> None:
    """Any permission of group or others refuses the file, and the fix is a command."""
    with pytest.raises(CredentialsError, match="chmod 600"):
        load_account(str(key_file(tmp_path, mode)), tmp_path, {})


def test_a_credential_of_systemd(tmp_path: Path) -> None:
    """systemd shows its access control list as permissions of the group; others may not read it either."""
    path = key_file(tmp_path, 0o440)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load_account(str(path), Path(), environ).project == "my-project"
    path.chmod(0o444)
    with pytest.raises(CredentialsError, match="chmod 600"):
        load_account(str(path), Path(), environ)
    path.chmod(0o440)
    with pytest.raises(CredentialsError, match="chmod 600"):
        load_account(str(path), Path(), {"CREDENTIALS_DIRECTORY": str(tmp_path / "other")})


def test_the_environment(tmp_path: Path) -> None:
    """``env:NAME`` is the content itself, so nothing of it may be shown."""
    assert load_account("env:FCM_KEY", tmp_path, {"FCM_KEY": key_text()}).project == "my-project"
    with pytest.raises(CredentialsError, match="not set"):
        load_account("env:FCM_KEY", tmp_path, {})
    with pytest.raises(CredentialsError, match="JSON") as caught:
        load_account("env:FCM_KEY", tmp_path, {"FCM_KEY": "s3cr3t"})
    assert "s3cr3t" not in repr(caught.value)


def test_the_environment_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the variables are those of the process."""
    monkeypatch.setenv("FCM_KEY", key_text())
    assert load_account("env:FCM_KEY", tmp_path).project == "my-project"


def test_what_is_no_key_file(tmp_path: Path) -> None:
    """Missing files, folders, pipes, sockets, long and binary files have one phrase each, and none blocks."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    (tmp_path / "long").write_bytes(b"x" * (MAX_KEY_BYTES + 1))
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "long").chmod(0o600)
    (tmp_path / "binary").chmod(0o600)
    for name, part in {
        "missing": "No such file",
        ".": "Is a directory",
        "pipe": "no regular file",
        "socket": "cannot be read",
        "long": "too long",
        "binary": "no text",
    }.items():
        with pytest.raises(CredentialsError) as caught:
            load_account(name, tmp_path, {})
        assert part in str(caught.value)
