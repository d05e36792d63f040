"""Files of the relay: those that it cannot write, and secrets that others can read.

Relative paths start at ``base``, the folder of the relay.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pyryrelay.config.settings import SharedSettings
from pyryrelay.jail.store import jail_file_problem
from pyryrelay.observe.log_file import path_of_log
from pyryrelay.preflight.account import Account
from pyryrelay.preflight.checks import JAIL_FILE, READABLE_SECRET, TWISTD_FOLDER, UNWRITABLE
from pyryrelay.protocol_options import Finding

__all__ = ["jail_file", "readable_secrets", "twistd_folders", "unwritable"]

_IN_MEMORY: Final = "bans are kept in memory only, and a restart forgets them"


def twistd_folders(options: Mapping[str, Any]) -> Iterator[Finding]:
    """Find why twistd would fail with a traceback because of its own options."""
    for name, folder in (
        ("rundir", options.get("rundir") or "."),
        ("pidfile", os.path.dirname(options.get("pidfile") or "")),
        ("logfile", str(log.parent) if (log := path_of_log(options)) is not None else ""),
    ):
        if folder and not os.path.isdir(folder):
            why = f"there is no folder {folder!r}"
            yield Finding(TWISTD_FOLDER, f"--{name} (of twistd)", why, f"create it: mkdir -p {folder}")


def jail_file(settings: SharedSettings, base: Path, account: Account) -> Iterator[Finding]:
    """Find why bans cannot be kept in the jail file."""
    if not settings.jail_file:
        return
    what, folder = f"--jail-file {settings.jail_file!r}", (base / settings.jail_file).parent
    if not folder.is_dir():
        why = f"there is no folder {str(folder)!r}, so {_IN_MEMORY}"
        yield Finding(JAIL_FILE, what, why, f"create it: mkdir -p {folder}")
    elif not account.may_write(folder):
        why = f"user {account.name} may not write to {str(folder)!r}, so {_IN_MEMORY}"
        fix = "choose a folder of that user with --rundir of twistd, or another --jail-file"
        yield Finding(JAIL_FILE, what, why, fix)
    elif (cause := jail_file_problem(base / settings.jail_file)) is not None:
        yield Finding(JAIL_FILE, what, f"{cause}, so {_IN_MEMORY}", "move it away, or choose another --jail-file")


def unwritable(twistd_options: Mapping[str, Any], account: Account) -> Iterator[Finding]:
    """Find files of twistd's options that the account of the relay will not be able to write or remove."""
    # twistd resolves the name later, from the folder in which it is started.
    pidfile = twistd_options.get("pidfile") and Path.cwd() / twistd_options["pidfile"]
    fix = "choose a folder of that user"
    if pidfile and pidfile.parent.is_dir() and not account.may_write(pidfile.parent):
        why = f"user {account.name} may not remove {str(pidfile)!r}, so it remains after the end"
        yield Finding(UNWRITABLE, "--pidfile (of twistd)", why, fix)
    log = path_of_log(twistd_options)
    if log is not None and log.parent.is_dir() and not account.may_write(log.parent):
        why = f"user {account.name} may not write to {str(log.parent)!r}, so {log.name!r} is never rotated"
        yield Finding(UNWRITABLE, "--logfile (of twistd)", why, fix)


def readable_secrets(settings: SharedSettings, base: Path, config_file: str) -> Iterator[Finding]:
    """Find files with secrets that every user of the machine can read."""
    for option in settings.options():
        name = getattr(settings, option.field)
        if option.type.names_secret and name and _is_public(base / name):
            yield _readable(f"--{option.name} {name!r}", base / name)
    secrets = [option.name for option in settings.options() if option.secret]
    given = [name for name in secrets if settings.origins.get(name, "").startswith(config_file)]
    if config_file and given and _is_public(base / config_file):
        yield _readable(f"--config {config_file!r}, which has {', '.join(given)}", base / config_file)


def _readable(what: str, path: Path) -> Finding:
    return Finding(READABLE_SECRET, what, "every user of this machine can read it", f"run: chmod 600 {path}")


def _is_public(path: Path) -> bool:
    """Tell whether every user can read a file: its own bits allow it, and those of all folders around it."""
    with contextlib.suppress(OSError):
        path = path.resolve(strict=True)
        is_readable = path.stat().st_mode & stat.S_IROTH
        return bool(is_readable) and all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)
    return False
