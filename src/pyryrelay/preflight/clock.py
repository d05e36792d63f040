"""Whether the system's clock is synchronised, as the kernel knows it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from typing import Any, Final

from pyryrelay.preflight.checks import CLOCK
from pyryrelay.protocol_options import Finding

__all__ = ["clock", "is_synchronised"]

TIME_ERROR: Final = 5
STA_UNSYNC: Final = 0x40
"""Both are of ``include/uapi/linux/timex.h``."""


class _Timex(ctypes.Structure):
    """``struct timex``: the beginning that is read here, and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def is_synchronised(libc: Any = None) -> bool | None:
    """Return whether a program keeps the clock right; None where the system does not tell, or does not permit to ask.

    Asks with ``modes`` 0, which changes nothing (adjtimex(2)).
    """
    if sys.platform != "linux":
        return None
    adjtime = getattr(ctypes.CDLL(None) if libc is None else libc, "ntp_adjtime", None)
    if adjtime is None:
        return None
    timex = _Timex()
    state = adjtime(ctypes.byref(timex))
    if state < 0:
        return None
    return state != TIME_ERROR and not timex.status & STA_UNSYNC


def clock(libc: Any = None) -> Iterator[Finding]:
    """Find a clock that nothing keeps right."""
    if is_synchronised(libc) is False:
        why = "certificates, events and the ends of bans are judged by a clock that nothing keeps right"
        fix = "start chronyd or systemd-timesyncd; where the host keeps the clock right, --accept-finding clock"
        yield Finding(CLOCK, "clock", why, fix)
