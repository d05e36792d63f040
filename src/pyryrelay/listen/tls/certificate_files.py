"""Certificates and keys in PEM files: where they are, who may read them, and what is in them.

Files are found by their names each time, so that symbolic links may be swapped, as certbot does it. Errors name files
and quote nothing of their content. Everything here blocks: call it in a thread while the relay runs.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pyryrelay.config.certificate_options import CertificatePlace
from pyryrelay.config.endpoints import tls_files
from pyryrelay.listen.tls.certificates import Certificate, CertificateError, read_chain, read_key
from pyryrelay.listen.tls.context import HTTP_1_1

__all__ = ["CertificateFile", "Signature"]

T = TypeVar("T")

MAX_FILE_BYTES: Final = 1024 * 1024
"""The largest file that is read. A chain takes some kilobytes."""
EVERYBODY: Final = frozenset({"everyone", "nobody", "nogroup", "users"})
"""Groups that many users are in."""
IN_FOLDER: Final = (("fullchain.pem", "privkey.pem"), ("tls.crt", "tls.key"))
"""The names of certificate and key in a folder: those of certbot, and those of a Kubernetes secret."""

Signature = tuple[tuple[int, int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """One certificate and its key in files. ``source`` is what the operator wrote for it.

    ``chain`` has the certificate and may have those that follow; more of them are in ``more``, if that is a file.
    ``key`` may be the same file as ``chain``.
    """

    source: str
    chain: Path
    key: Path
    more: Path | None = None

    @classmethod
    def of_place(cls, place: CertificatePlace, base: Path) -> CertificateFile:
        """Return the files that a value of ``--certificate`` stands for. Relative names start at ``base``."""
        chain = base / place.path
        if place.key:
            return cls(place.text, chain, base / place.key)
        if not os.path.isdir(chain):  # the methods of paths raise if the folder above may not be read
            return cls(place.text, chain, chain)
        pairs = [(chain / certificate, chain / key) for certificate, key in IN_FOLDER]
        return cls(place.text, *next((pair for pair in pairs if os.path.exists(pair[0])), pairs[0]))

    @classmethod
    def of_endpoint(cls, text: str, base: Path) -> CertificateFile:
        """Return the files of an ``ssl:`` endpoint."""
        files = tls_files(text)
        return cls(
            files.certificate, base / files.certificate, base / files.key, base / files.chain if files.chain else None
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(dict.fromkeys(path for path in (self.chain, self.key, self.more) if path is not None))

    def signature(self) -> Signature | None:
        """Return a value that changes when a file is written, replaced or made readable; None if one is missing."""
        try:
            found = [os.stat(path) for path in self.paths]
        except OSError:
            return None
        return tuple((each.st_mtime_ns, each.st_ctime_ns, each.st_size, each.st_ino, each.st_dev) for each in found)

    def read_safely(self) -> Certificate:
        """Read everything. Raises `CertificateError` if it cannot be used, or if any user can use the key."""
        certificate = self.read()
        exposure = self.exposure()
        if exposure is not None:
            raise exposure
        return certificate

    def read(self) -> Certificate:
        """Read everything, whoever else can use the key. Raises `CertificateError` if it cannot be used."""
        chain = _named(self.chain, read_chain, _content(self.chain))
        if self.more is not None:
            chain += _named(self.more, read_chain, _content(self.more))
        key = _named(self.key, read_key, _content(self.key))
        certificate = Certificate(chain, key, self.source)
        if not certificate.has_its_key:
            problem = f"the key in {str(self.key)!r} does not belong to the certificate in {str(self.chain)!r}"
            raise CertificateError(problem, "name the key that the certificate was issued for")
        _named(self.chain, certificate.context, HTTP_1_1)
        return certificate

    def exposure(self) -> CertificateError | None:
        """Return what is wrong if any user of the machine can read or change the key; None if it is safe."""
        mode = _mode(self.key)
        if mode is None or not mode & 0o007:
            return None
        problem = f"{str(self.key)!r} has a private key that any user of this machine can use (mode {mode:03o})"
        return CertificateError(problem, f"chmod 640 {self.key}")

    def group_problem(self) -> CertificateError | None:
        """Return what is wrong if a group that many users are in can read or change the key."""
        mode = _mode(self.key)
        if mode is None or not mode & 0o070:
            return None
        try:
            group = grp.getgrgid(self.key.stat().st_gid).gr_name
        except (KeyError, OSError):
            return None
        if group not in EVERYBODY:
            return None
        problem = f"{str(self.key)!r} has a private key that all users in group {group!r} can use"
        return CertificateError(problem, f"give it to a group of the relay's own: chgrp GROUP {self.key}")

    def unreadable(self) -> Path | None:
        """Return the first file that this process may not read, or not find; None if it may read all that there are."""
        return next(filter(_is_forbidden, self.paths), None)


def _is_forbidden(path: Path) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(path, os.R_OK, effective_ids=True)


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _named(path: Path, read: Callable[[bytes], T], data: bytes) -> T:
    """Call ``read``, and put the name of the file in front of what it complains about."""
    try:
        return read(data)
    except CertificateError as error:
        raise CertificateError(f"{str(path)!r} {error.problem}", error.fix.replace(" KEY ", f" {path} ")) from None


def _content(path: Path) -> bytes:
    fix = "name PEM files that this user can read"
    try:
        # A FIFO without a writer must not block.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CertificateError(f"{str(path)!r} is not a regular file", fix)
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CertificateError(f"{str(path)!r}: {error.strerror}", fix) from None
    if len(data) > MAX_FILE_BYTES:
        raise CertificateError(f"{str(path)!r} is longer than {MAX_FILE_BYTES} bytes", fix)
    return data
