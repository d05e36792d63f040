"""Make the reactor schedule by the monotonic clock.

Twisted's reactors schedule `callLater`, and with it `LoopingCall`, `deferLater` and every timeout, by the wall clock.
If that is set back by ten minutes, no call is due for ten minutes: request heads do not time out, no pings are sent,
files are not read again. All reactors read the time in one place, `IReactorTime.seconds`. `follow_monotonic_clock`
replaces it, which also protects Twisted's own timers (TLS, HTTP, Autobahn).

A separate timer on a ``timerfd`` would leave the reactor unchanged, but its expiry would be one ready descriptor among
thousands. The reactor looks for due calls in every turn, however many descriptors are ready.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pyryrelay.runtime.twisted_internals import follows_wall_clock, replace_clock

__all__ = ["follow_monotonic_clock"]


def follow_monotonic_clock(reactor: Any, now: Callable[[], float] = time.monotonic) -> bool:
    """Schedule by ``now`` from this moment on. Returns False if the reactor does not use the wall clock.

    The reactor's time continues from its present value, so pending calls keep their times. Calling this again changes
    nothing. Call it before scheduling anything that must survive a jump of the wall clock.
    """
    if not follows_wall_clock(reactor):
        return False
    offset_s = reactor.seconds() - now()
    replace_clock(reactor, lambda: now() + offset_s)
    return True
