"""The limit of open files, and how many the settings need."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard import LeaseLimits
from pyryrelay.preflight.checks import OPEN_FILES
from pyryrelay.protocol_options import Finding

__all__ = ["OTHER_FILES", "files_needed", "open_files", "raise_open_files"]

OTHER_FILES = 64
"""Open files besides connections: listeners, logs, and those of the reactor."""


def files_needed(limits: LeaseLimits, settings: SharedSettings) -> int:
    """Return how many files are open if every cap is reached, with as many lingering refusals as handshakes.

    One of several workers also serves connections that others have accepted, about as many as it passes on, and has
    a socket to each of the others. An instance of a cluster has a second socket for each connection that it passes on,
    and about as many arrive from the others.
    """
    workers = settings.worker_count
    passed = 0 if workers == 1 else limits.max_connections + workers
    spliced = 2 * limits.max_connections if settings.cluster_listen else 0
    return limits.max_connections + passed + spliced + 2 * limits.max_handshakes + OTHER_FILES


def open_files(needed: int) -> Iterator[Finding]:
    """Find that the hard limit allows fewer open files than are needed. Raises nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(soft, hard)
    if resource.RLIM_INFINITY not in (soft, hard) and most < needed:
        yield _shortage(most, needed)


def raise_open_files(needed: int) -> Finding | None:
    """Raise the soft limit of open files to what is needed, as far as the hard limit allows.

    Returns a finding if that is not enough, else None.
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


def _shortage(allowed: int, needed: int) -> Finding:
    fix = "raise the hard limit (LimitNOFILE= in systemd, ulimit -Hn) or lower --max-connections"
    return Finding(OPEN_FILES, f"only {allowed} files may be open", f"the settings need {needed}", fix)
