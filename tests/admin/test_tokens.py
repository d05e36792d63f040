"""The file with the token of the admin listener."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyryrelay.admin.tokens import Token, TokenFileError, check_token_file, read_token
from pyryrelay.config.sources import SettingsError
from pyryrelay.mounts import Settings

SECRET = b"correct-horse-battery-staple"


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a file."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_token(tmp_path: Path, end: bytes, mode: int) -> None:
    """A line break at the end is not part of it."""
    token = read_token(written(tmp_path / "token", SECRET + end, mode))
    assert token.matches(SECRET)
    for other in (b"", SECRET + b"x", SECRET[:-1], SECRET.upper(), SECRET + end + b"\n"):
        assert not token.matches(other)


def test_tokens_are_compared_by_what_they_are() -> None:
    """Two tokens are equal if their secrets are, and neither shows it."""
    assert Token(SECRET) == Token(SECRET)
    assert hash(Token(SECRET)) == hash(Token(SECRET))
    assert Token(SECRET) != Token(SECRET + b"x")
    assert Token(SECRET) != SECRET
    assert "correct" not in repr(Token(SECRET)) + repr(Token(SECRET)._digest)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o660, 0o601])
def test_other_users_have_no_access(tmp_path: Path, mode: int) -> None:
    """A file that others can read or change is refused, with its mode."""
    with pytest.raises(TokenFileError) as caught:
        read_token(written(tmp_path / "token", SECRET, mode))
    assert caught.value.problem == f"can be read or changed by other users (mode {mode:o})"
    assert caught.value.fix == "run chmod 600 on it"


@pytest.mark.parametrize(
    "content", [b"", b"short", b"x" * 19, b"x" * 1025, b"a b" * 10, b"x" * 20 + b"\n\n", b"\xff" * 30]
)
def test_files_without_a_token(tmp_path: Path, content: bytes) -> None:
    """What is too short, too long, or not one line of visible characters is refused, and not shown."""
    with pytest.raises(TokenFileError, match="one line of 20 to 1024") as caught:
        read_token(written(tmp_path / "token", content))
    assert "openssl rand" in caught.value.fix


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe is not waited for, and a folder and a missing file are named as such."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, problem in (("pipe", "not a regular file"), (".", "not a regular file"), ("missing", "No such file")):
        with pytest.raises(TokenFileError, match=problem) as caught:
            read_token(tmp_path / name)
        assert not caught.value.is_forbidden


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told apart from the others: after a change of the user it is expected."""

    def forbidden(*_arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(TokenFileError, match="cannot be read: Permission denied") as caught:
        read_token(tmp_path / "token")
    assert caught.value.is_forbidden


def test_settings(tmp_path: Path) -> None:
    """A relative path starts at the folder of the relay; an error names the option, the file and the fix."""
    written(tmp_path / "token", SECRET)
    found = check_token_file(Settings(admin_token_file="token"), tmp_path)
    assert found is not None
    assert found.matches(SECRET)
    assert check_token_file(Settings(), tmp_path) is None
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(SettingsError) as caught:
        check_token_file(Settings(admin_token_file="token"), tmp_path)
    assert str(caught.value) == (
        "--admin-token-file (from default): 'token' can be read or changed by other users (mode 644); "
        "run chmod 600 on it"
    )


def test_a_listener_that_others_reach(tmp_path: Path) -> None:
    """Whatever the type of its endpoint, it needs a token before it listens."""
    with pytest.raises(SettingsError, match="lets others use the admin listener"):
        check_token_file(Settings(admin_listen="plugin:9090"), tmp_path)
