"""One process that workers are forked from, from the outside: it is started, asked, and killed if it does not answer.

From the inside it is `pyryrelay.workers.starting.fork_server`. Times are seconds of the reactor's clock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from pyryrelay.handover.descriptors import send_with_descriptors
from pyryrelay.handover.link import Link
from pyryrelay.handover.successor import Command
from pyryrelay.runtime.child_process import ErrorLines, blocked_signals, outcome_of
from pyryrelay.runtime.process import why_not_started
from pyryrelay.workers.starting.fork_server import CONTROL, MODULE, encoded
from pyryrelay.workers.starting.process import BLOCKED

__all__ = ["FORK_S", "LATE_S", "LOAD_S", "ForkServer", "nothing"]

LOAD_S: Final = 40.0
"""How long the process that workers are forked from may take to load all modules."""
LATE_S: Final = 1.0
"""How long it may take to fork a worker before another one is started."""
FORK_S: Final = 10.0
"""How long it may take at most, if the other one is not ready sooner."""
_BLOCKED: Final = BLOCKED | {signal.SIGTERM}


class ForkServer(ProcessProtocol):
    """One process that workers are forked from, from the outside. ``ended`` is called once, in a later turn.

    It is killed if it does not answer. Both callbacks get this object first.
    """

    def __init__(
        self,
        reactor: Any,
        received: Callable[[ForkServer, Mapping[str, Any]], None],
        ended: Callable[[ForkServer, str], None],
    ) -> None:
        self._reactor = reactor
        self._received = received
        self._ended = ended
        self._errors = ErrorLines(reactor.seconds)
        self._process: Any = None
        self._end: socket.socket | None = None
        self._timer: Any = None
        self._asked = 0
        self._problem = ""
        self._is_over = False
        self.is_ready = False
        self.on_crowded: Callable[[], None] = nothing
        """Called if too many descriptors are on their way for a worker to be forked, to take some from there."""
        self.on_late: Callable[[], None] = nothing
        """Called if it has not answered for `LATE_S`."""

    @property
    def pid(self) -> int:
        """The number of the process; 0 if there is none."""
        return getattr(self._process, "pid", None) or 0

    def start(self, command: Command) -> None:
        """Start the process."""
        try:
            self._spawn(command)
        except OSError as error:
            self._problem = why_not_started(error)
            self.kill()
            if self._process is None:
                self._reactor.callLater(0, self._over, "")
            return
        self._wait(LOAD_S)

    def _spawn(self, command: Command) -> None:
        """Start the process, and connect it. Raises `OSError`, perhaps behind its start."""
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        words = [*flags, "-P", "-m", MODULE, str(os.getpid()), *command.words]
        ours, theirs = socket.socketpair()
        # SIGTERM, too: a service manager sends it to everybody, and then no other one shall be started.
        with ours, theirs, open(os.devnull, "rb") as nothing:
            with blocked_signals(_BLOCKED):
                self._process = self._reactor.spawnProcess(
                    self,
                    sys.executable,
                    [sys.executable, *words],
                    env=dict(command.environ),
                    path=command.directory,
                    childFDs={0: nothing.fileno(), 1: "r", 2: "r", CONTROL: theirs.fileno()},
                )
            self._errors.name = f"process {self.pid}"
            self._end = ours.dup()
            Link.over(self._reactor, ours, self._said, self.kill)

    def fork(self, number: int, descriptors: list[int]) -> bool:
        """Ask for a worker that has these descriptors; the answer has the number.

        Returns False if too many descriptors are on their way, so that it has to be asked again later.
        """
        if self._end is None:
            return True
        self._end.settimeout(0)
        body = encoded({"number": number})
        try:
            if not _send(self._end, body, descriptors):
                self.on_crowded()
                if not _send(self._end, body, descriptors):
                    return False
        except OSError:
            self.kill()
            return True
        self._asked += 1
        self._wait_for_answer()
        return True

    def kill(self) -> None:
        """End the process."""
        self._wait(None)
        if self._end is not None:
            self._end.close()
            self._end = None
        if self._process is not None and not self._is_over:
            with contextlib.suppress(ProcessExitedAlready):
                self._process.signalProcess("KILL")

    def _said(self, message: Mapping[str, Any]) -> None:
        if self._end is None:
            return
        if message.get("type") == "ready":
            self.is_ready = True
            self._wait(None)
        else:
            self._asked -= 1
            self._wait_for_answer()
        self._received(self, message)

    def _wait_for_answer(self) -> None:
        if self._asked:
            self._wait(LATE_S, self._late)
        else:
            self._wait(None)

    def _late(self) -> None:
        self._wait(FORK_S - LATE_S)
        self.on_late()

    def _wait(self, seconds: float | None, call: Callable[[], None] | None = None) -> None:
        """Do something after a time, by default kill the process, and nothing else; None is never."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if seconds is None else self._reactor.callLater(seconds, call or self.kill)

    def _over(self, outcome: str) -> None:
        if not self._is_over:
            self._is_over = True
            self.kill()
            self._ended(self, self._problem or outcome)

    # Called by Twisted

    def outReceived(self, data: bytes) -> None:  # noqa: N802
        self._errors.feed(data)

    def errReceived(self, data: bytes) -> None:  # noqa: N802
        self._errors.feed(data)

    def errConnectionLost(self) -> None:  # noqa: N802
        self._errors.end()

    def processExited(self, reason: Failure) -> None:  # noqa: N802
        self._reactor.callLater(0, self._over, outcome_of(reason))


def _send(end: socket.socket, body: bytes, descriptors: list[int]) -> bool:
    """Send descriptors; False if there are too many on their way. Raises `OSError`."""
    try:
        send_with_descriptors(end, body, descriptors)
    except OSError as error:
        if error.errno != errno.ETOOMANYREFS:
            raise
        return False
    return True


def nothing() -> None:
    """Do nothing."""
