"""A process that is to succeed this one: it is started, says that it is ready, and takes over.

It gets the command line, the folder and the environment that this process was started with, so it reads the same
configuration and runs whatever version is installed by now. If it ends, or does not get ready in time, nothing has
changed. Times are seconds.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from pyryrelay.handover.link import Greeting, GreetingError, Link, send_greeting
from pyryrelay.handover.predecessor import VARIABLE
from pyryrelay.logger import ErrbackLogger
from pyryrelay.runtime.child_process import outcome_of
from pyryrelay.runtime.process import why_not_started

__all__ = ["START_TIMEOUT_S", "Command", "Successor", "SuccessorEvents"]

_log = ErrbackLogger(namespace="pyryrelay")
_log_failure: Final = _log.errback("A protocol failed to answer its successor")

START_TIMEOUT_S: Final = 60.0
"""How long a successor may take to get ready."""


@dataclass(frozen=True, slots=True)
class Command:
    """How a process was started: its arguments behind the interpreter, its folder, and its environment.

    ``words`` are the arguments of twistd, whichever program was started.
    """

    arguments: Sequence[str]
    directory: str
    environ: Mapping[str, str]
    words: Sequence[str] = ()

    @classmethod
    def of_this_process(cls, words: Sequence[str] = ()) -> Command:
        """Return the command of this process. Call it before the process changes its folder."""
        return cls(tuple(sys.orig_argv[1:]), os.getcwd(), dict(os.environ), tuple(words))


class SuccessorEvents(Protocol):
    """What a successor reports."""

    def failed(self, why: str) -> None:
        """It cannot take over; this process must go on. Called before `ready`, and then nothing else is."""

    def ready(self, kept: frozenset[str]) -> None:
        """It waits for this process to stop accepting. It has kept the sockets of these endpoints."""

    def serving(self) -> None:
        """It accepts connections."""

    def lost(self) -> None:
        """It has ended after `ready`, without having been told to."""

    def ending(self) -> None:
        """It ends because it was told to."""

    def asked(self, protocol: str, question: bytes) -> bytes | Deferred[bytes] | None:
        """Answer a question of its protocol of that name; None for a protocol that this process does not speak."""


class Successor(ProcessProtocol):
    """See the module's docstring."""

    def __init__(self, reactor: Any, command: Command, greeting: Greeting, events: SuccessorEvents) -> None:
        """Do nothing before `start`."""
        self._reactor = reactor
        self._command = command
        self._greeting = greeting
        self._events = events
        self._link: Link | None = None
        self._process: Any = None
        self._timeout: Any = None
        self._is_ready = False
        self._is_over = False
        self._line = ""
        self.version = ""

    @property
    def pid(self) -> int:
        """The number of the process; 0 if there is none."""
        return (self._process.pid if self._process is not None else None) or 0

    def start(self) -> None:
        """Start the process. A failure is reported at once, or later."""
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                send_greeting(ours, self._greeting)
                self._process = self._spawn(theirs)
                self._link = Link.over(self._reactor, ours, self._received, self._disconnected)
        except (GreetingError, OSError) as error:
            if self._process is not None:
                # Left alone, it would take this process for gone, and take over.
                self._kill()
            self._fail(why_not_started(error) if isinstance(error, OSError) else str(error))
            return
        self._timeout = self._reactor.callLater(START_TIMEOUT_S, self._timed_out)

    def _spawn(self, end: socket.socket) -> Any:
        environ = {**self._command.environ, VARIABLE: f"{os.getpid()}:{end.fileno()}"}
        arguments = [sys.executable, *self._command.arguments]
        descriptors = {number: number for number in (0, 1, 2, end.fileno())}
        return self._reactor.spawnProcess(
            self, sys.executable, arguments, env=environ, path=self._command.directory, childFDs=descriptors
        )

    def take(self, **fields: object) -> None:
        """Have it accept connections; this process has stopped."""
        self._send("take", **fields)

    def released(self, protocol: str) -> None:
        """Tell that a protocol here has nothing left that only one process can have."""
        self._send("released", protocol=protocol)

    def cancel(self) -> None:
        """End it, because this process was told to end before it could hand over."""
        self._send("cancel")
        self.leave()

    def leave(self) -> None:
        """Report nothing more: this process ends."""
        self._is_over = True
        self._stop_timeout()
        if self._link is not None:
            self._link.close()

    def _send(self, kind: str, **fields: object) -> None:
        if self._link is not None:
            self._link.send(kind, **fields)

    def _received(self, message: Mapping[str, Any]) -> None:
        if self._is_over:
            return
        match message:
            case {"type": "ready", "version": str(version), "kept": list(kept)} if not self._is_ready:
                self._is_ready = True
                self._stop_timeout()
                self.version = version
                self._events.ready(frozenset(map(str, kept)))
            case {"type": "serving"}:
                self._events.serving()
            case {"type": "failed", "line": str(line)}:
                self._line = line
            case {"type": "ending"}:
                self._is_over = True
                self._events.ending()
            case {"type": "ask", "number": int(number), "protocol": str(protocol), "question": str(question)}:
                self._ask(number, protocol, question.encode())

    def _ask(self, number: int, protocol: str, question: bytes) -> None:
        def answered(answer: Any) -> None:
            self._send("answer", number=number, answer=None if answer is None else answer.decode())

        maybeDeferred(self._events.asked, protocol, question).addErrback(_log_failure).addCallback(answered)

    def _disconnected(self) -> None:
        self._link = None
        if self._is_over:
            return
        if self._is_ready:
            self._is_over = True
            self._events.lost()
        else:
            # The reason, or the exit code, comes with its end.
            self._kill()

    def _timed_out(self) -> None:
        self._line = f"it was not ready within {START_TIMEOUT_S:.0f} s"
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        """Report the end of a process that never got ready; a later one is noticed by the link."""
        if not (self._is_ready or self._is_over):
            self._fail(self._line or f"it ended ({outcome_of(reason)}) before it was ready; its log says more")

    def _fail(self, why: str) -> None:
        self._is_over = True
        self._stop_timeout()
        self._events.failed(why)

    def _stop_timeout(self) -> None:
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
