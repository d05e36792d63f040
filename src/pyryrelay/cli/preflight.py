"""Check whether this machine meets the settings: for ``--check``, at the start, and before twistd daemonizes.

`inspect` changes nothing; `raise_open_files` is for the start. Relative paths start at the folder of the relay.
"""

from __future__ import annotations

import datetime
import os
import pwd
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pyryrelay.config.endpoints import Endpoint, tls_files
from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard import LeaseLimits
from pyryrelay.jail.store import jail_file_problem
from pyryrelay.listen.probe import Problem, probe
from pyryrelay.observe.log_file import path_of_log
from pyryrelay.websocket.frames.native import native_warnings

OTHER_FILES = 64
"""Open files besides connections: listeners, logs, and those of the reactor."""

EXPIRES_SOON: Final = datetime.timedelta(days=14)


@dataclass(slots=True)
class Findings:
    """Lines for the operator: `problems` prevent the start, `warnings` do not, and `notes` are for information."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Account:
    """The user and the groups that the relay runs as once its ports are open."""

    uid: int
    gids: frozenset[int]

    @classmethod
    def of(cls, twistd_options: Mapping[str, Any]) -> Account:
        """Return the account that ``--uid`` and ``--gid`` of twistd name, by default the current one."""
        uid, gid = twistd_options.get("uid"), twistd_options.get("gid")
        if uid is None:
            return cls(os.geteuid(), frozenset({os.getegid() if gid is None else gid, *os.getgroups()}))
        try:
            entry = pwd.getpwuid(uid)
            groups = os.getgrouplist(entry.pw_name, entry.pw_gid if gid is None else gid)
        except KeyError:
            groups = []
        return cls(uid, frozenset(groups if gid is None else [*groups, gid]))

    @property
    def name(self) -> str:
        """The name of the user, or its number if it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def may_write(self, path: Path) -> bool:
        """Return whether this account may write to a file or folder, by its permission bits. Root always may."""
        if self.uid == 0:
            return True
        found = path.stat()
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self.gids else 0
        needed = 0o3 if path.is_dir() else 0o2
        return (found.st_mode >> shift) & needed == needed


def inspect(
    settings: SharedSettings, limits: LeaseLimits, base: Path, twistd_options: Mapping[str, Any], now: datetime.datetime
) -> Findings:
    """Check everything that could prevent the start, without changing anything."""
    findings = Findings()
    for option, text in _endpoints(settings):
        problem = probe(text, base)
        if problem is not None and problem.holder is not None and problem.holder.is_relay:
            findings.notes.append(f"--{option} {text!r} is held by {problem.holder}, as expected before a reload")
        elif problem is not None:
            findings.problems.append(_line(settings, option, text, problem))
    findings.problems += protocol_problems(settings, base)
    findings.notes += [f"prevents a start, not a reload: {line}" for line in protocol_conflicts(settings, base)]
    findings.warnings += start_warnings(settings, base, twistd_options, now)
    shortage = shortage_of_files(files_needed(limits))
    findings.warnings += [shortage] if shortage else []
    if settings.jail_file and (cause := jail_file_problem(base / settings.jail_file)) is not None:
        findings.warnings.append(f"--jail-file {settings.jail_file!r} {cause}; bans are kept in memory only")
    findings.warnings += native_warnings()
    return findings


def start_warnings(
    settings: SharedSettings, base: Path, twistd_options: Mapping[str, Any], now: datetime.datetime
) -> list[str]:
    """Return the warnings of the start: about the settings, certificates, files, and those of the protocols.

    Warnings that rooms log by themselves when they start are not included: too few open files, an unusable jail file,
    missing native parts. `inspect` adds them.
    """
    lines = settings.warnings()
    for option, text in _endpoints(settings):
        lines += certificate_warnings(option, text, base, now)
    lines += file_warnings(settings, base, twistd_options)
    return [*lines, *(line for protocol in settings.active_protocols() for line in protocol.preflight(settings, base))]


def protocol_problems(settings: SharedSettings, base: Path) -> list[str]:
    """Return a line for each thing that a protocol cannot start without, or one if all protocols are off."""
    if not settings.active_protocols():
        switches = [protocol.name for protocol in settings.protocols if protocol.name in settings.by_name()]
        fix = f"turn one on: {' or '.join(f'--{name}' for name in switches)}"
        return [str(settings.error(name, "'false' leaves no protocol", fix)) for name in switches[:1]] or [
            "this relay has no protocol"
        ]
    return [line for protocol in settings.active_protocols() for line in protocol.problems(settings, base)]


def protocol_conflicts(settings: SharedSettings, base: Path) -> list[str]:
    """Return a line for each thing that a protocol needs and that another process has."""
    return [line for protocol in settings.active_protocols() for line in protocol.conflicts(settings, base)]


def endpoints_in_use(settings: SharedSettings, base: Path) -> list[str]:
    """Return a line for each endpoint that cannot be listened on."""
    probed = ((option, text, probe(text, base)) for option, text in _endpoints(settings))
    return [_line(settings, option, text, problem) for option, text, problem in probed if problem is not None]


def _endpoints(settings: SharedSettings) -> list[tuple[str, str]]:
    listen = [("listen", text) for text in settings.listen]
    return [*listen, *([("admin-listen", settings.admin_listen)] if settings.admin_listen else [])]


def _line(settings: SharedSettings, option: str, text: str, problem: Problem) -> str:
    return str(settings.error(option, f"{text!r} cannot be listened on: {problem.cause}", problem.fix))


# Files


def twistd_problem(options: Mapping[str, Any]) -> str | None:
    """Return why twistd would fail with a traceback because of its own options; None if it would not."""
    for name, folder in (
        ("rundir", options.get("rundir") or "."),
        ("pidfile", os.path.dirname(options.get("pidfile") or "")),
        ("logfile", str(log.parent) if (log := path_of_log(options)) is not None else ""),
    ):
        if folder and not os.path.isdir(folder):
            return f"--{name} (of twistd): there is no folder {folder!r}; create it: mkdir -p {folder}"
    return None


def file_warnings(settings: SharedSettings, base: Path, twistd_options: Mapping[str, Any]) -> list[str]:
    """Warn about files that the account of the relay will not be able to write or remove."""
    account = Account.of(twistd_options)
    lines = []
    if settings.jail_file:
        folder = (base / settings.jail_file).parent
        if not folder.is_dir():
            fix = f"create it: mkdir -p {folder}"
            lines.append(
                f"--jail-file {settings.jail_file!r}: there is no folder {str(folder)!r}, so {_IN_MEMORY}; {fix}"
            )
        elif not account.may_write(folder):
            problem = f"user {account.name} may not write to {str(folder)!r}, so {_IN_MEMORY}"
            fix = "choose a folder of that user with --rundir of twistd, or another --jail-file"
            lines.append(f"--jail-file {settings.jail_file!r}: {problem}; {fix}")
    # twistd resolves the name later, from the folder in which it is started.
    pidfile = twistd_options.get("pidfile") and Path.cwd() / twistd_options["pidfile"]
    if pidfile and pidfile.parent.is_dir() and not account.may_write(pidfile.parent):
        problem = f"user {account.name} may not remove {str(pidfile)!r}, so it remains after the end"
        lines.append(f"--pidfile (of twistd): {problem}; choose a folder of that user")
    log = path_of_log(twistd_options)
    if log is not None and log.parent.is_dir() and not account.may_write(log.parent):
        problem = f"user {account.name} may not write to {str(log.parent)!r}, so {log.name!r} is never rotated"
        lines.append(f"--logfile (of twistd): {problem}; choose a folder of that user")
    return lines


_IN_MEMORY: Final = "bans are kept in memory only, and a restart forgets them"


def certificate_warnings(option: str, text: str, base: Path, now: datetime.datetime) -> list[str]:
    """Warn about the certificate of an ``ssl:`` endpoint if clients refuse it, or soon will."""
    if Endpoint.parse(text).scheme != "ssl":
        return []
    from cryptography.x509 import load_pem_x509_certificate

    files = tls_files(text)
    try:
        certificate = load_pem_x509_certificate((base / files.certificate).read_bytes())
    except (OSError, ValueError):
        return []  # reported elsewhere: the endpoint cannot be used
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    found = []
    if now >= end:
        found.append(f"expired on {end:%Y-%m-%d}: clients refuse to connect; renew it")
    elif now < start:
        found.append(
            f"is not valid before {start:%Y-%m-%d %H:%M} UTC: clients refuse to connect; check the clock of the machine"
        )
    elif end - now < EXPIRES_SOON:
        found.append(f"expires on {end:%Y-%m-%d}; renew it")
    return [f"--{option} {text!r}: the certificate in {files.certificate!r} {state}" for state in found]


# Open files


def files_needed(limits: LeaseLimits) -> int:
    """Return how many files are open if every cap is reached, with as many lingering refusals as handshakes."""
    return limits.max_connections + 2 * limits.max_handshakes + OTHER_FILES


def shortage_of_files(needed: int) -> str | None:
    """Return a warning if the hard limit allows fewer open files than are needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(soft, hard)
    return _shortage(most, needed) if resource.RLIM_INFINITY not in (soft, hard) and most < needed else None


def raise_open_files(needed: int) -> str | None:
    """Raise the soft limit of open files to what is needed, as far as the hard limit allows.

    Returns a warning if that is not enough, else None.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (ValueError, OSError):
        allowed = soft
    return None if allowed >= needed else _shortage(allowed, needed)


def _shortage(allowed: int, needed: int) -> str:
    return (
        f"only {allowed} files may be open, and the settings need {needed}: "
        "raise the hard limit (LimitNOFILE= in systemd, ulimit -Hn) or lower --max-connections"
    )
