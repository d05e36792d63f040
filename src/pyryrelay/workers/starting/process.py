"""The process of a worker, as its supervisor sees it: its start, what it writes, and its end.

A worker gets the command line, the folder and the environment of the supervisor, and the connection to it. It writes
events of the log to its standard output, and what Python writes by itself to its standard error; both are pipes. It
ends by itself when the connection does, and is killed if it does not.

`WorkerStarter` may start one process in advance. It has loaded its modules when it is needed, and waits for the
greeting, so that a worker that was killed is replaced sooner. Times are seconds of the reactor's clock.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure

from pyryrelay.handover.successor import Command, outcome_of
from pyryrelay.observe.log_formats.passed_on import event_of
from pyryrelay.runtime.child_process import ErrorLines, blocked_signals
from pyryrelay.workers.rpc import Rpc
from pyryrelay.workers.starting.greeting import VARIABLE, WorkerGreeting, send_greeting

__all__ = ["SPARE_AFTER_S", "WorkerProcess", "WorkerStarter"]

_log = Logger(namespace="pyryrelay")

END_S: Final = 2.0
"""How long a process may live when its connection has ended."""
SPARE_AFTER_S: Final = 1.0
"""How long after the start of a worker another process is started in advance: not while the machine is busy with it."""
_BLOCKED: Final = frozenset({signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})
"""A terminal and a service manager send them to all processes, but the supervisor decides. SIGTERM has a handler."""


class WorkerProcess(ProcessProtocol):
    """One process. It is started by `spawn`, and becomes a worker by `greet`; implements `supervisor.Process`."""

    def __init__(self, reactor: Any, command: Command) -> None:
        self._reactor = reactor
        self._command = command
        self.rpc = Rpc()
        self._end: socket.socket | None = None
        self._process: Any = None
        self._pid = 0  # Twisted forgets it when the process has ended
        self._index = -1
        self._ended: Callable[[str], None] | None = None
        self._outcome: str | None = None
        self._lines = b""
        self._errors = ErrorLines(reactor.seconds)
        self._timer: Any = None

    @property
    def pid(self) -> int:
        """The number of the process; 0 if there is none."""
        return self._pid

    @property
    def is_over(self) -> bool:
        """Whether the process has ended, or was never started."""
        return self._outcome is not None or self._process is None

    def spawn(self) -> None:
        """Start the process. A failure is remembered for `greet`."""
        ours, theirs = socket.socketpair()
        with theirs:
            environ = {**self._command.environ, VARIABLE: f"{os.getpid()}:{theirs.fileno()}"}
            arguments = [sys.executable, *self._command.arguments]
            try:
                with open(os.devnull, "rb") as nothing, blocked_signals(_BLOCKED):
                    self._process = self._reactor.spawnProcess(
                        self,
                        sys.executable,
                        arguments,
                        env=environ,
                        path=self._command.directory,
                        childFDs={0: nothing.fileno(), 1: "r", 2: "r", theirs.fileno(): theirs.fileno()},
                    )
            except OSError as error:
                ours.close()
                self._outcome = f"could not be started: {error.strerror}"
                return
        self._end, self._pid = ours, self._process.pid
        self._errors.name = f"process {self.pid}"

    def greet(self, greeting: WorkerGreeting, ended: Callable[[str], None]) -> None:
        """Make the process a worker. ``ended`` is called exactly once, in a later turn."""
        self._index, self._ended = greeting.index, ended
        end, self._end = self._end, None
        if end is None or self._outcome is not None:
            self._later(0, self._report)
            return
        try:
            send_greeting(end, greeting)
        except OSError as error:
            end.close()
            self._outcome = f"the sockets cannot be passed: {error.strerror or error}"
            self.kill()
            self._later(0, self._report)
            return
        self._errors.name = f"worker {greeting.index}"
        self.rpc.on_lost.append(self._disconnected)
        self.rpc.connect(self._reactor, end)

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        if self._process is not None:
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

    def _report(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            self.rpc.close()
            self.rpc.lost()
            ended(self._outcome or "unknown")

    # Called by Twisted

    def outReceived(self, data: bytes) -> None:  # noqa: N802
        """Write the events of the log that are complete now."""
        *lines, self._lines = (self._lines + data).split(b"\n")
        for line in filter(None, lines):
            event = event_of(line, self._index)
            if event is None:
                self._errors.feed(line + b"\n")
            else:
                globalLogPublisher(event)

    def errReceived(self, data: bytes) -> None:  # noqa: N802
        """Log what Python writes by itself."""
        self._errors.feed(data)

    def errConnectionLost(self) -> None:  # noqa: N802
        """Log a last line."""
        self._errors.end()

    def processExited(self, reason: Failure) -> None:  # noqa: N802
        """Report the end, without waiting for the pipes: a child of the worker may hold them."""
        self._outcome = self._outcome or outcome_of(reason)
        if self._ended is not None:
            self._later(0, self._report)


class WorkerStarter:
    """Starts workers; see `pyryrelay.workers.supervisor.Starter`. ``greeting`` returns what one is told.

    With ``has_spare``, one process is started in advance.
    """

    def __init__(
        self, reactor: Any, command: Command, greeting: Callable[[int, int], WorkerGreeting], *, has_spare: bool = True
    ) -> None:
        self._reactor = reactor
        self._command = command
        self._greeting = greeting
        self._has_spare = has_spare
        self._spare: WorkerProcess | None = None
        self._timer: Any = None

    def __call__(self, index: int, boot: int, ended: Callable[[str], None]) -> WorkerProcess:
        """Start a worker."""
        process, self._spare = self._usable_spare(), None
        if process is None:
            process = self._spawned()
        process.greet(self._greeting(index, boot), ended)
        if self._has_spare:
            self._stop_timer()
            self._timer = self._reactor.callLater(SPARE_AFTER_S, self._start_spare)
        return process

    def _spawned(self) -> WorkerProcess:
        process = WorkerProcess(self._reactor, self._command)
        process.spawn()
        return process

    def _start_spare(self) -> None:
        self._timer = None
        if self._has_spare and self._usable_spare() is None:
            self._spare = self._spawned()

    def _usable_spare(self) -> WorkerProcess | None:
        if self._spare is not None and self._spare.is_over:
            self._spare.dismiss()
            self._spare = None
        return self._spare

    def stop(self) -> None:
        """Start nothing in advance any more, and end what was."""
        self._has_spare = False
        self._stop_timer()
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.dismiss()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
