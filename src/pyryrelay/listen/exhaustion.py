"""What happens when the process has no descriptor left for a connection: accepting pauses, and one line is logged.

An `Acceptor` pauses by itself. One of Twisted's ports accepts connections and closes them again as fast as the process
can, and logs several lines for each. So `Pausing` checks for a descriptor before such a port accepts. After that check
has failed, the port accepts one connection at a time for a while.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf
from typing import Any, Final

from twisted.logger import Logger

from pyryrelay.runtime.twisted_internals import accept_one, is_listening, replace_accepting

__all__ = ["PAUSE_S", "TELL_S", "Exhaustion", "Pausing"]

_log = Logger(namespace="pyryrelay")

PAUSE_S: Final = 0.25
"""How long accepting pauses after the system had no descriptor, or no memory, for a connection."""

TELL_S: Final = 10.0
"""Minimum interval between log lines about this."""


class Exhaustion:
    """Logs that connections cannot be accepted."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Create one that has logged nothing."""
        self._now = now
        self._told_s = -inf
        self._untold = 0

    def tell(self, error: OSError | Exception) -> None:
        """Log a line, or count it as left out."""
        now = self._now()
        if now - self._told_s < TELL_S:
            self._untold += 1
            return
        _log.error(
            "cannot accept connections: {reason}; trying again every {seconds} s ({left_out} more left out)",
            reason=os.strerror(getattr(error, "errno", None) or 0),
            seconds=PAUSE_S,
            left_out=self._untold,
        )
        self._told_s, self._untold = now, 0


class Pausing:
    """Makes one of Twisted's ports pause as an `Acceptor` does."""

    def __init__(self, port: Any, reactor: Any) -> None:
        """Take effect at once. ``port`` is a `twisted.internet.tcp.Port`, or one of UNIX sockets."""
        self._port = port
        self._reactor = reactor
        self._exhaustion = Exhaustion(reactor.seconds)
        self._careful_until_s = -inf
        replace_accepting(port, self._accept)

    def _accept(self, accept_all: Callable[[], object]) -> object:
        """Accept, unless there is no descriptor, and check whether there is one for the next time."""
        result, error = None, self._lack()
        if error is None:
            if self._reactor.seconds() < self._careful_until_s:
                accept_one(self._port)
            result = accept_all()
            error = self._lack()
        if error is not None:
            self._pause(error)
        return result

    def _lack(self) -> OSError | None:
        """Return the error of asking for a descriptor; None if there is one."""
        try:
            os.close(os.dup(self._port.fileno()))
        except OSError as error:
            return error
        return None

    def _pause(self, error: OSError) -> None:
        if not is_listening(self._port):
            return
        self._port.stopReading()
        self._reactor.callLater(PAUSE_S, self._go_on)
        self._careful_until_s = self._reactor.seconds() + TELL_S
        self._exhaustion.tell(error)

    def _go_on(self) -> None:
        if is_listening(self._port):
            self._port.startReading()
