"""The folder in which accounts and certificates are kept: a restart orders nothing anew.

Each authority has a folder of its own in it, so that certificates of a test authority are never used by mistake. A
certificate is one file with its chain and its key, which is replaced as a whole. Nothing is read from a folder that
other users have access to, and nothing is written to it. Calls block.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

__all__ = ["CacheError", "CacheProblem", "CertificateCache", "problem_of"]

_ACCOUNT: Final = "account-key.json"


class CacheError(Exception):
    """The folder cannot be used. The text is one line with the fix, without the name of the option."""


class CacheProblem(NamedTuple):
    """What is wrong with a folder, and what to do about it."""

    why: str
    fix: str


def problem_of(folder: Path) -> CacheProblem | None:
    """Return what is wrong with a folder that is there; None if it can be used, or is still to be created."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return CacheProblem(f"it cannot be used: {error.strerror}", "name a folder that the relay's user can write")
    if not stat.S_ISDIR(found.st_mode):
        return CacheProblem("it is no folder", "name a folder for certificates and keys")
    if found.st_mode & 0o077:
        why = f"other users have access to the keys in it (mode {found.st_mode & 0o777:o})"
        return CacheProblem(why, f"run: chmod 700 {folder}")
    return None


class CertificateCache:
    """The files of one authority, which is known by the URL of its directory."""

    def __init__(self, folder: Path, directory: str) -> None:
        digest = hashlib.sha256(directory.encode()).hexdigest()[:8]
        self._top = folder
        self._is_usable = False
        self._account = ""
        self._folder = folder / f"{urlsplit(directory).hostname or 'acme'}-{digest}"

    def prepare(self) -> None:
        """Create the folder if it is not there. Raises `CacheError`."""
        problem = problem_of(self._top)
        if problem is not None:
            raise CacheError(f"{problem.why}; {problem.fix}")
        try:
            self._top.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            owner = self._top.stat().st_uid
        except OSError as error:
            fix = "name a folder that the relay's user can write"
            raise CacheError(f"it cannot be written: {error.strerror}; {fix}") from None
        # The owner can read everything, whatever the mode is. Root can do so anyway.
        if owner not in (os.geteuid(), 0):
            raise CacheError(f"it belongs to another user (number {owner}); name a folder of the relay's own user")
        self._is_usable = True

    def account(self) -> str:
        """Return the private key of the account as a JWK; "" if there is none."""
        if not self._is_usable:
            return self._account
        try:
            return (self._folder / _ACCOUNT).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return ""

    def save_account(self, account: str) -> None:
        """Keep the key of the account, in memory at least. Raises `OSError`."""
        self._account = account
        self._write(_ACCOUNT, account.encode("ascii"))

    def certificate(self, name: str) -> bytes | None:
        """Return the chain and the key of a name in PEM; None if there are none."""
        if not self._is_usable:
            return None
        try:
            return (self._folder / f"{name}.pem").read_bytes()
        except OSError:
            return None

    def save_certificate(self, name: str, pem: bytes) -> None:
        """Keep a certificate. Raises `OSError`; the one from before is still there then."""
        self._write(f"{name}.pem", pem)

    def _write(self, name: str, content: bytes) -> None:
        if not self._is_usable:
            try:
                self.prepare()  # the operator may have mended it
            except CacheError as error:
                raise PermissionError(errno.EACCES, str(error)) from None
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=self._folder)  # of mode 600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._folder / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
