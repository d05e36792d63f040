"""How a supervisor starts workers on Linux: they are forked from a process that has loaded all modules before.

So a worker that was killed is replaced in a fraction of a second, however many are killed at once, and what all workers
have loaded is in memory once. The workers are children of the supervisor (`pyryrelay.workers.starting.fork_server`), so
the process that they were forked from may end: another one is started, and workers that wait for it are forked later.
If it does not answer, another one is started beside it, and takes its place once that has loaded all modules: a
machine that is too busy for the one is too busy for the other, too.

Times are seconds of the reactor's clock.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.handover.descriptors import send_with_descriptors
from pyryrelay.handover.link import Link
from pyryrelay.handover.successor import Command
from pyryrelay.logger import Repeats
from pyryrelay.runtime.child_process import ErrorLines, blocked_signals, outcome_of
from pyryrelay.runtime.process import why_not_started
from pyryrelay.runtime.twisted_internals import AdoptedProcess, collect_orphans
from pyryrelay.workers.starting.fork_server import CONTROL, MODULE, encoded
from pyryrelay.workers.starting.greeting import WorkerGreeting
from pyryrelay.workers.starting.process import BLOCKED, WorkerProcess, drop_lines

__all__ = ["FORK_S", "LOAD_S", "ForkServer", "ForkingStarter"]

_log = Logger(namespace="pyryrelay")

LOAD_S: Final = 40.0
"""How long the process that workers are forked from may take to load all modules."""
LATE_S: Final = 1.0
"""How long it may take to fork a worker before another one is started."""
FORK_S: Final = 10.0
"""How long it may take at most, if the other one is not ready sooner."""
_BLOCKED: Final = BLOCKED | {signal.SIGTERM}
CROWDED_S: Final = 0.5
"""What is waited for if there is no room for the descriptors of a worker."""
AGAIN_S: Final = 1.0
TELL_S: Final = 10.0
"""Minimum interval between log lines about processes that end before they have loaded all modules."""
MAX_AGAIN_S: Final = 60.0
"""What the next one waits for, if one has ended before it had loaded all modules: longer each time. A worker that is to
be forked waits for nothing of that."""


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
        self.on_crowded: Callable[[], None] = _nothing
        """Called if too many descriptors are on their way for a worker to be forked, to take some from there."""
        self.on_late: Callable[[], None] = _nothing
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


@dataclass(slots=True)
class _Request:
    """A worker that is to be forked: its process, what it is told, and both ends of what it is connected to."""

    process: WorkerProcess
    greeting: Callable[[], WorkerGreeting]
    ours: socket.socket
    theirs: socket.socket
    output: tuple[int, int]
    errors: tuple[int, int]

    @classmethod
    def of(cls, process: WorkerProcess, greeting: Callable[[], WorkerGreeting]) -> _Request:
        """Make the connections. Raises `OSError`."""
        with contextlib.ExitStack() as opened:
            ends = socket.socketpair()
            for end in ends:
                opened.enter_context(end)
            pipes = []
            for _ in range(2):
                pipes.append(os.pipe())
                for descriptor in pipes[-1]:
                    opened.callback(os.close, descriptor)
            opened.pop_all()
        return cls(process, greeting, *ends, *pipes)

    @property
    def descriptors(self) -> list[int]:
        """Those of the worker."""
        return [self.theirs.fileno(), self.output[1], self.errors[1]]

    def close_theirs(self) -> None:
        """Close what only the worker needs."""
        self.theirs.close()
        os.close(self.output[1])
        os.close(self.errors[1])

    def close(self) -> None:
        """Close everything."""
        self.close_theirs()
        self.ours.close()
        os.close(self.output[0])
        os.close(self.errors[0])


class ForkingStarter:
    """Starts workers; see `pyryrelay.workers.supervisor.Starter`. ``greeting`` returns what one is told, and
    ``copy`` writes lines that one has rendered to the log.

    The caller has adopted orphans; see `pyryrelay.runtime.process.adopt_orphans`.
    """

    def __init__(
        self,
        reactor: Any,
        command: Command,
        greeting: Callable[[int, int], WorkerGreeting],
        copy: Callable[[bytes], None] = drop_lines,
    ) -> None:
        self._reactor = reactor
        self._command = command
        self._greeting = greeting
        self._copy = copy
        self._server: ForkServer | None = None
        self._next: ForkServer | None = None
        """Takes the place of the other one, which is late, when it is ready."""
        self._numbers = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        self._timer: Any = None
        self._failures = 0
        self._is_stopped = False
        self._repeats = Repeats(reactor.seconds, TELL_S)
        self.on_crowded: Callable[[], None] = _nothing
        """See `ForkServer`."""

    def __call__(self, index: int, boot: int, ended: Callable[[str], None]) -> WorkerProcess:
        """Start a worker."""
        process = WorkerProcess(self._reactor, self._copy)
        process.expect(index, ended)
        try:
            request = _Request.of(process, lambda: self._greeting(index, boot))
        except OSError as error:
            process.not_started(why_not_started(error))
            return process
        number = next(self._numbers)
        self._requests[number] = request
        if self._server is None:
            self._start_server()
        elif self._server.is_ready and not self._fork(number):
            _log.error(
                "worker {worker} waits: too many connections are on their way to one that does not answer; raise the "
                "limit of open files (LimitNOFILE=)",
                worker=index,
            )
        return process

    def _fork(self, number: int) -> bool:
        """Ask for a worker that still waits, now and until there is room for its descriptors; False if not now."""
        server, request = self._server, self._requests.get(number)
        if server is None or request is None or not server.is_ready or server.fork(number, request.descriptors):
            return True
        self._reactor.callLater(CROWDED_S, self._fork, number)
        return False

    def look_after(self) -> None:
        """Collect the children of workers that have ended; call it now and then."""
        if not self._requests:  # otherwise one may be a worker that is not known yet
            collect_orphans()

    def stop(self) -> None:
        """Start no process any more that workers are forked from, and end the one that there is."""
        self._is_stopped = True
        self._stop_timer()
        for server in (self._server, self._next):
            if server is not None:
                server.kill()
        self._give_up("not needed any more")

    def _start_server(self) -> None:
        self._stop_timer()
        self._server = self._started()

    def _started(self) -> ForkServer:
        server = ForkServer(self._reactor, self._received, self._server_ended)
        server.on_crowded, server.on_late = self.on_crowded, self._start_next
        server.start(self._command)
        return server

    def _start_next(self) -> None:
        """Start another process beside the one that does not answer."""
        if self._next is None and not self._is_stopped:
            self._next = self._started()

    def _replace(self) -> None:
        """Put the process that was started last in the place of the one that is late."""
        late, self._server, self._next = self._server, self._next, None
        if late is not None:
            late.kill()
        self._renew()

    def _renew(self) -> None:
        """Connect workers that wait anew: one that was forked without a word is told nothing, and ends."""
        requests, self._requests = self._requests, {}
        for request in requests.values():
            self._again(request)

    def _received(self, server: ForkServer, message: Mapping[str, Any]) -> None:
        kind, number = message.get("type"), message.get("number", 0)
        if server is self._next and kind == "ready":
            _log.error("no answer from the process that workers are forked from; it was killed and replaced")
            self._replace()
        if server is not self._server:
            return
        if kind == "ready":
            self._failures = 0
            for number in list(self._requests):
                self._fork(number)
            return
        if self._next is not None:
            # It was only slow.
            late, self._next = self._next, None
            late.kill()
        if number in self._requests:
            request = self._requests.pop(number)
            if kind == "forked":
                self._forked(request, message["pid"])
            else:
                request.close()
                request.process.not_started(str(message.get("problem")))

    def _forked(self, request: _Request, pid: int) -> None:
        request.close_theirs()
        pipes = {1: request.output[0], 2: request.errors[0]}
        request.process.has_started(AdoptedProcess(self._reactor, pid, request.process, pipes), request.ours)
        request.process.greet(request.greeting())

    def _server_ended(self, server: ForkServer, outcome: str) -> None:
        if server is self._next:
            self._next = None
        if self._is_stopped or server is not self._server:
            return
        self._server = None
        if server.is_ready or self._repeats.due(outcome) is not None:
            _log.error("the process that workers are forked from ended: {reason}; another one starts", reason=outcome)
        if self._next is not None:
            self._replace()
        elif server.is_ready:
            self._start_server()
            self._renew()
        else:
            self._give_up(f"the process that workers are forked from ended: {outcome}")
            self._timer = self._reactor.callLater(min(AGAIN_S * 2**self._failures, MAX_AGAIN_S), self._start_server)
            self._failures = min(self._failures + 1, 10)

    def _again(self, request: _Request) -> None:
        request.close()
        try:
            again = _Request.of(request.process, request.greeting)
        except OSError as error:
            request.process.not_started(why_not_started(error))
        else:
            self._requests[next(self._numbers)] = again

    def _give_up(self, why: str) -> None:
        requests, self._requests = self._requests, {}
        for request in requests.values():
            request.close()
            request.process.not_started(why)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def _nothing() -> None:
    """Do nothing."""
