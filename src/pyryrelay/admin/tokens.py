"""The token of the admin listener, in the file of ``--admin-token-file``. It appears in no error and in no log."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from pathlib import Path
from typing import Final

from pyryrelay.config.options.admin_options import admin_problem
from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import SettingsError

__all__ = ["Token", "TokenFileError", "check_token_file", "read_token"]

_TOKEN: Final = re.compile(rb"[!-~]{20,1024}")
_MAX_BYTES: Final = 4096
_WRITE_ONE: Final = "write one: (umask 077; openssl rand -hex 32 > FILE)"


class TokenFileError(Exception):
    """A file that cannot be used. ``is_forbidden``: this user may not read it, as after a change of the user."""

    def __init__(self, problem: str, fix: str, *, is_forbidden: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix
        self.is_forbidden = is_forbidden


class Token:
    """A secret that others are compared with. It keeps only a hash, and takes the same time for every text."""

    __slots__ = ("_digest",)

    def __init__(self, secret: bytes) -> None:
        self._digest = _digest(secret)

    def matches(self, text: bytes) -> bool:
        """Return whether a text is the secret."""
        return hmac.compare_digest(self._digest, _digest(text))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and hmac.compare_digest(self._digest, other._digest)

    def __hash__(self) -> int:
        return hash(self._digest)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def read_token(path: Path) -> Token:
    """Read a token. Raises `TokenFileError`, also if other users can read the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        is_forbidden = isinstance(error, PermissionError)
        fix = "name a file that this user can read" if is_forbidden else _WRITE_ONE
        raise TokenFileError(f"cannot be read: {error.strerror}", fix, is_forbidden=is_forbidden) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise TokenFileError("is not a regular file", _WRITE_ONE)
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise TokenFileError(f"can be read or changed by other users (mode {mode:o})", "run chmod 600 on it")
        content = os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)
    secret = content.removesuffix(b"\n").removesuffix(b"\r")
    if not _TOKEN.fullmatch(secret):
        raise TokenFileError("does not hold one line of 20 to 1024 visible ASCII characters", _WRITE_ONE)
    return Token(secret)


def check_token_file(settings: SharedSettings, base: Path) -> Token | None:
    """Return the token that the settings ask for, if any. Relative paths start at ``base``.

    Raises `SettingsError`, also if there is none and others could reach the listener.
    """
    problem = admin_problem(settings)
    if problem is not None:
        raise settings.error(*problem)
    name = settings.admin_token_file
    if not name:
        return None
    try:
        return read_token(base / name)
    except TokenFileError as error:
        raise _settings_error(settings, error) from error


def _settings_error(settings: SharedSettings, error: TokenFileError) -> SettingsError:
    return settings.error("admin-token-file", f"{settings.admin_token_file!r} {error.problem}", error.fix)
