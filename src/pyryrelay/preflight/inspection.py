"""Everything that is looked at before the start: for ``--check``, at the start, and before twistd daemonizes.

`inspect` changes nothing. Relative paths start at the folder of the relay.
"""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyryrelay.config.derive import gate_config
from pyryrelay.config.endpoints import of_workers
from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard import CidrSet
from pyryrelay.listen.probe import probe
from pyryrelay.preflight.account import Account, privileges
from pyryrelay.preflight.acme import automatic_certificates
from pyryrelay.preflight.certificates import certificates
from pyryrelay.preflight.checks import CHECKS, ENDPOINT, ENDPOINT_HELD, NO_PROTOCOL, UNKNOWN_CHECK, found_by
from pyryrelay.preflight.clock import clock
from pyryrelay.preflight.cluster.listening import exposed_instances
from pyryrelay.preflight.cluster.servers import cluster_files, cluster_library
from pyryrelay.preflight.exposure import exposure
from pyryrelay.preflight.files import jail_file, readable_secrets, twistd_folders, unwritable
from pyryrelay.preflight.native import native_parts
from pyryrelay.preflight.open_files import files_needed, open_files
from pyryrelay.protocol_options import Check, Finding

__all__ = ["Situation", "endpoints", "inspect", "of_settings"]


@dataclass(frozen=True, slots=True)
class Situation:
    """Where the relay starts: its folder, the options of twistd, its configuration file ("" for none), and the time."""

    base: Path
    twistd_options: Mapping[str, Any]
    config_file: str
    now: datetime.datetime


def inspect(settings: SharedSettings, situation: Situation) -> list[Finding]:
    """Return everything that is found, except for endpoints; see `endpoints`."""
    base, twistd_options = situation.base, situation.twistd_options
    account = Account.of(twistd_options)
    limits = gate_config(settings, CidrSet(), CidrSet()).limits
    return [
        *twistd_folders(twistd_options),
        *_accepted(settings),
        *of_settings(settings, base),
        *certificates(settings, base, situation.now),
        *automatic_certificates(settings, base, account),
        *cluster_library(settings),
        *cluster_files(settings, base),
        *exposed_instances(settings),
        *readable_secrets(settings, base, situation.config_file),
        *jail_file(settings, base, account),
        *unwritable(twistd_options, account),
        *privileges(settings, twistd_options),
        *open_files(files_needed(limits, settings)),
        *native_parts(),
        *clock(),
    ]


def of_settings(settings: SharedSettings, base: Path) -> list[Finding]:
    """Return what the settings have, and what their protocols find."""
    protocols = settings.active_protocols()
    found = [finding for protocol in protocols for finding in protocol.findings(settings, base)]
    return [*exposure(settings), *(found if protocols else [_no_protocol(settings)])]


def _no_protocol(settings: SharedSettings) -> Finding:
    switches = [protocol.name for protocol in settings.protocols if protocol.name in settings.by_name()]
    if not switches:
        return Finding(NO_PROTOCOL, "this relay", "it has no protocol", "mount one")
    fix = f"turn one on: {' or '.join(f'--{name}' for name in switches)}"
    return found_by(NO_PROTOCOL, settings.error(switches[0], "'false' leaves no protocol", fix))


def _accepted(settings: SharedSettings) -> Iterator[Finding]:
    """Find names of checks that do not exist."""
    known = [check.name for check in (*CHECKS, *_of_protocols(settings))]
    for name in settings.accept_finding:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {close[0]}?" if close else f"write one of {', '.join(known)}"
            yield found_by(UNKNOWN_CHECK, settings.error("accept-finding", f"{name!r} is not a check", fix))


def _of_protocols(settings: SharedSettings) -> list[Check]:
    return [check for protocol in settings.protocols for check in protocol.checks]


def endpoints(settings: SharedSettings, base: Path) -> Iterator[Finding]:
    """Find endpoints that cannot be listened on, by trying for a moment."""
    for option, text in _endpoints(settings):
        problem = probe(text, base)
        if problem is None:
            continue
        error = settings.error(option, f"{text!r} cannot be listened on: {problem.cause}", problem.fix)
        if problem.holder is not None and problem.holder.is_relay:
            why = f"held by {problem.holder} as expected before a reload"
            yield Finding(ENDPOINT_HELD, f"--{option} {text!r}", why, _STOP)
        else:
            yield found_by(ENDPOINT, error)


_STOP: Final = "stop it to start another relay there"


def _endpoints(settings: SharedSettings) -> list[tuple[str, str]]:
    count = settings.worker_count
    listen = [("listen", text) for text in of_workers(settings.listen, count)]
    others = [("admin-listen", settings.admin_listen)]
    others += [("cluster-listen", text) for text in of_workers([settings.cluster_listen], count)]
    return [*listen, *((option, text) for option, text in others if text)]
