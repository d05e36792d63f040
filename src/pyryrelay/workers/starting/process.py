"""The process of a worker, as its supervisor sees it: its start, what it writes, and its end.

A worker gets the command line, the folder and the environment of the supervisor, and the connection to it. It writes
what it logs to its standard output, and what Python writes by itself to its standard error; both are pipes. It
ends by itself when the connection does, and is killed if it does not.

How a process is started is told by `pyryrelay.workers.starting.forking`, and by `pyryrelay.workers.starting.spawning`
for systems that cannot do that. Times are seconds of the reactor's clock.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from pyryrelay.observe.log_formats.passed_on import PassedOn, event_of
from pyryrelay.runtime.child_process import ErrorLines, outcome_of
from pyryrelay.workers.rpc import Rpc
from pyryrelay.workers.starting.greeting import WorkerGreeting, send_greeting

__all__ = ["BLOCKED", "WorkerProcess", "drop_lines"]

END_S: Final = 2.0
"""How long a process may live when its connection has ended."""
BLOCKED: Final = frozenset({signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})
"""A terminal and a service manager send them to all processes, but the supervisor decides. SIGTERM has a handler."""


def drop_lines(lines: bytes) -> None:
    """Forget lines of a worker that was told to render none."""


class WorkerProcess(ProcessProtocol):
    """One process; implements `pyryrelay.workers.supervisor.Process`.

    It `has_started`, or was `not_started`, and becomes a worker by `greet`. It may be killed at any time. ``copy``
    writes lines that the worker has rendered to the log.
    """

    def __init__(self, reactor: Any, copy: Callable[[bytes], None] = drop_lines) -> None:
        self._reactor = reactor
        self._copy = copy
        self.rpc = Rpc()
        self._end: socket.socket | None = None
        self._process: Any = None
        self._pid = 0  # Twisted forgets it when the process has ended
        self._index = -1
        self._ended: Callable[[str], None] | None = None
        self._outcome: str | None = None
        self._passed_on = PassedOn()
        self._errors = ErrorLines(reactor.seconds)
        self._timer: Any = None

    @property
    def pid(self) -> int:
        """The number of the process; 0 if there is none."""
        return self._pid

    @property
    def is_over(self) -> bool:
        """Whether the process has ended, or will never be one."""
        return self._outcome is not None

    def has_started(self, process: Any, end: socket.socket) -> None:
        """Take over a process, which tells this object about itself, and our end of the connection to it."""
        self._process, self._end, self._pid = process, end, process.pid or 0
        if self._index < 0:
            self._errors.name = f"process {self.pid}"
        if self._outcome is not None:
            self.dismiss()

    def not_started(self, outcome: str) -> None:
        """Record that there will be no process."""
        self._outcome = self._outcome or outcome
        self._report_later()

    def expect(self, index: int, ended: Callable[[str], None]) -> None:
        """Say which worker it is. ``ended`` is called exactly once, in a later turn."""
        self._index, self._ended = index, ended
        self._errors.name = f"worker {index}"
        if self._outcome is not None:
            self._report_later()

    def greet(self, greeting: WorkerGreeting) -> None:
        """Make the process a worker, unless it has ended."""
        end, self._end = self._end, None
        if end is None:
            return
        try:
            send_greeting(end, greeting)
            self.rpc.connect(self._reactor, end)
        except OSError as error:
            end.close()
            self._outcome = self._outcome or f"the sockets cannot be passed: {error.strerror or error}"
            self.kill()
            self._report_later()
            return
        self.rpc.on_lost.append(self._disconnected)

    def kill(self) -> None:
        """End the process at once, whatever it does; one that is not there yet ends when it is."""
        if self._process is None:
            self.not_started("killed before it was started")
            return
        with contextlib.suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    def dismiss(self) -> None:
        """End a process that is no worker yet."""
        if self._end is not None:
            self._end.close()
            self._end = None
        self.kill()

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._reactor.callLater(seconds, call)

    def _disconnected(self) -> None:
        """Have the process end: nobody can tell it anything any more."""
        if self._outcome is None:
            self._later(END_S, self.kill)

    def _report_later(self) -> None:
        if self._ended is not None:
            self._later(0, self._report)

    def _report(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            self.rpc.close()
            self.rpc.lost()
            ended(self._outcome or "unknown")

    # Called by Twisted

    def outReceived(self, data: bytes) -> None:  # noqa: N802
        """Write what is complete now to the log."""
        for is_block, content in self._passed_on.feed(data):
            if is_block:
                self._copy(content)
            elif event := event_of(content, self._index):
                globalLogPublisher(event)
            else:
                self._errors.feed(content + b"\n")

    def errReceived(self, data: bytes) -> None:  # noqa: N802
        """Log what Python writes by itself."""
        self._errors.feed(data)

    def errConnectionLost(self) -> None:  # noqa: N802
        """Log a last line."""
        self._errors.end()

    def processExited(self, reason: Failure) -> None:  # noqa: N802
        """Report the end, without waiting for the pipes: a child of the worker may hold them."""
        self._outcome = self._outcome or outcome_of(reason)
        self._report_later()
