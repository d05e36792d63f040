"""Where the service-account key comes from: a file that only its owner can read, or an environment variable.

No error quotes anything of the key.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pyryrelay.pyry.push.credentials import MAX_KEY_BYTES, CredentialsError, ServiceAccount, read_account

ENVIRONMENT: Final = "env:"
_OTHERS: Final = 0o077
_GROUP_READS: Final = 0o040


def load_account(source: str, base: Path, environ: Mapping[str, str] | None = None) -> ServiceAccount:
    """Return the service account that ``--push-credentials`` names. Raises `CredentialsError`.

    A relative path starts at ``base``.
    """
    environ = os.environ if environ is None else environ
    if source.startswith(ENVIRONMENT):
        return read_account(_variable(source.removeprefix(ENVIRONMENT), environ))
    return read_account(_content(base / source, environ))


def _variable(name: str, environ: Mapping[str, str]) -> str:
    text = environ.get(name, "")
    if not text:
        raise CredentialsError("names an environment variable that is not set; set it, or name a file")
    return text


def _content(path: Path, environ: Mapping[str, str]) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise CredentialsError("is no regular file; name the key file of a service account")
            if found.st_mode & _OTHERS & ~_tolerated(path, environ):
                raise CredentialsError("can be read by others; run chmod 600 on it")
            content = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise CredentialsError(f"cannot be read: {error.strerror}; check its path, owner and mode") from None
    if len(content) > MAX_KEY_BYTES:
        raise CredentialsError("is too long to be a key; name the key file of a service account")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise CredentialsError("is no text; name the key file of a service account") from None


def _tolerated(path: Path, environ: Mapping[str, str]) -> int:
    """Return the permissions of others that are no risk.

    systemd gives a service its credentials by an access control list, which ``stat`` shows as those of the group.
    """
    directory = environ.get("CREDENTIALS_DIRECTORY")
    return _GROUP_READS if directory and path.parent == Path(directory) else 0
