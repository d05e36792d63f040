"""Notify systemd of the state of a service of ``Type=notify``: that it is ready, and that it is stopping.

A unit of ``Type=simple`` counts as started while its program is still loading. A reload at that time would send SIGHUP
to a process that has no handler for it yet.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

__all__ = ["READY", "STOPPING", "main_pid", "notify"]

READY = "READY=1"
STOPPING = "STOPPING=1"


def main_pid(pid: int) -> str:
    """Return the state that another process is the main one of the service now."""
    return f"MAINPID={pid}"


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send a state to systemd, if it started this process and expects one; return whether it was sent.

    See sd_notify(3).
    """
    name = environ.get("NOTIFY_SOCKET", "")
    if name[:1] not in ("/", "@"):
        return False
    address = f"\0{name[1:]}" if name.startswith("@") else name  # an abstract name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            sock.sendto(state.encode("ascii"), address)
        except OSError:
            return False
    return True
