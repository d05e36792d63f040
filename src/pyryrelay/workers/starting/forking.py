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
import itertools
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted.logger import Logger

from pyryrelay.handover.successor import Command
from pyryrelay.logger import Repeats
from pyryrelay.runtime.process import why_not_started
from pyryrelay.runtime.twisted_internals import AdoptedProcess, collect_orphans
from pyryrelay.workers.starting.greeting import WorkerGreeting
from pyryrelay.workers.starting.process import WorkerProcess, drop_lines
from pyryrelay.workers.starting.server_process import ForkServer, nothing

__all__ = ["ForkingStarter"]

_log = Logger(namespace="pyryrelay")

CROWDED_S: Final = 0.5
"""What is waited for if there is no room for the descriptors of a worker."""
AGAIN_S: Final = 1.0
TELL_S: Final = 10.0
"""Minimum interval between log lines about processes that end before they have loaded all modules."""
MAX_AGAIN_S: Final = 60.0
"""What the next one waits for, if one has ended before it had loaded all modules: longer each time. A worker that is to
be forked waits for nothing of that."""


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
        self.on_crowded: Callable[[], None] = nothing
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
