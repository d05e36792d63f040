"""Is this machine fit for the settings? Checked once at the start."""

from __future__ import annotations

import resource

from pyryrelay.guard import LeaseLimits

SPARE_FILES = 64
"""What the process opens besides connections: listeners, logs, the reactor's own."""


def files_needed(limits: LeaseLimits) -> int:
    """Open files when every cap is reached. Refused connections may linger, as many as there are handshakes."""
    return limits.max_connections + 2 * limits.max_handshakes + SPARE_FILES


def raise_open_files(needed: int) -> str | None:
    """Raise the soft limit of open files to what is needed, as far as the hard limit lets us.

    A warning where that is not far enough, else None.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (ValueError, OSError):
        allowed = soft
    if allowed >= needed:
        return None
    return (
        f"only {allowed} files may be open, and the settings need {needed}: "
        "raise the hard limit (LimitNOFILE= in systemd, ulimit -Hn) or lower --max-connections"
    )
