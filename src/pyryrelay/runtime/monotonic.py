"""Have the reactor schedule by the monotonic clock.

Twisted's reactors schedule `callLater`, and with it `LoopingCall`, `deferLater` and every timeout, by the wall clock.
When that is set back by ten minutes, nothing is due for ten minutes: heads are not timed out, nobody is pinged,
files are not read. All reactors ask for the time in one place, `IReactorTime.seconds`; `follow_monotonic_clock`
replaces it, so that Twisted's own timers (TLS, HTTP, Autobahn) are as safe as those of this package.

A timer of our own on a ``timerfd`` would leave the reactor alone, but its expiry would be one ready descriptor among
thousands. The reactor looks for calls that are due in every turn, however many descriptors wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.python.runtime import seconds as wall_clock

__all__ = ["follow_monotonic_clock"]


def follow_monotonic_clock(reactor: Any, now: Callable[[], float] = time.monotonic) -> bool:
    """Schedule by `now` from this moment on. False for a reactor whose clock is another than the wall clock already.

    The reactor's time goes on from where it is, so calls that are pending keep their times, and calling this again
    changes nothing. Call it before anything is scheduled that must survive a jump of the clock.
    """
    if getattr(reactor, "seconds", None) is not wall_clock:
        return False
    offset_s = wall_clock() - now()
    reactor.seconds = lambda: now() + offset_s
    return True
