"""The secret that the members of a cluster share, from its file."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from pyryrelay.config.endpoints import has_worker
from pyryrelay.config.options.cluster_listen_options import cluster_listen_problem
from pyryrelay.config.options.cluster_options import cluster_problem
from pyryrelay.config.settings import SharedSettings

__all__ = ["check_instance", "check_secret_file"]

_SECRET: Final = re.compile(rb"[!-~]{20,1024}")
_FIX: Final = "write one with: (umask 077; openssl rand -hex 32 >FILE), and give all relays the same"


def check_secret_file(settings: SharedSettings, base: Path) -> bytes:
    """Return the secret that the settings name; nothing without ``--cluster``. Relative paths start at ``base``.

    Raises `pyryrelay.config.sources.SettingsError`.
    """
    found = cluster_problem(settings)
    if found is not None:
        raise settings.error(*found)
    name = settings.cluster_secret_file
    if not settings.cluster:
        return b""
    path = base / name
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(2048).strip(b"\r\n")
    except OSError as error:
        problem = f"{name!r} cannot be read: {error.strerror}"
        raise settings.error("cluster-secret-file", problem, _FIX) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        problem = f"{name!r} is accessible to other users"
        raise settings.error("cluster-secret-file", problem, f"run: chmod 600 {path}")
    if not _SECRET.fullmatch(secret):
        problem = f"{name!r} does not hold one line of 20 to 1024 visible ASCII characters"
        raise settings.error("cluster-secret-file", problem, _FIX)
    return secret


def check_instance(settings: SharedSettings, *, has_workers: bool = False) -> None:
    """Check that what makes this relay an instance for others fits together. Raises `SettingsError`.

    With ``has_workers`` these are the settings of several processes, of which each is an instance.
    """
    found = cluster_listen_problem(settings, has_cluster=bool(settings.cluster))
    if found is not None:
        raise settings.error(*found)
    text = settings.cluster_listen
    if text and has_workers and not has_worker(text):
        fix = "write {worker} in it, and in --cluster-advertise: each worker is an instance"
        raise settings.error("cluster-listen", f"{text!r} cannot be that of several workers", fix)
