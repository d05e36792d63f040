"""Processes in memory: what a reactor starts, and the ends of their connections."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from pyryrelay.handover.successor import Command
from pyryrelay.listen.inherited import Inherited
from pyryrelay.workers.starting.greeting import WorkerGreeting
from pyryrelay.workers.starting.process import WorkerProcess

COMMAND = Command(("-m", "pyryrelay", "run"), "/srv", {"HOME": "/"}, ("--nodaemon", "pyryrelay"))


class FakeProcess:
    """A process in memory."""

    def __init__(self, pid: int, protocol: Any, arguments: list[str], others: dict[str, Any]) -> None:
        self.pid: int | None = pid
        self.protocol = protocol
        self.arguments = arguments
        self.others = others
        self.signals: list[str] = []
        self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def signalProcess(self, name: str) -> None:  # noqa: N802
        """Record."""
        if self.pid is None:
            raise ProcessExitedAlready
        self.signals.append(name)

    def end(self, number: int = signal.SIGKILL) -> None:
        """Let it end."""
        self.pid = None
        self.protocol.processExited(Failure(ProcessTerminated(None, number)))


class StartingReactor(Clock):
    """Starts processes in memory. `kept` are the ends of their connections, which a test closes."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[FakeProcess] = []
        self.links: list[Any] = []
        self.kept: list[socket.socket] = []
        self.error: OSError | None = None
        self.is_full = False
        """Whether no descriptor is left for a connection."""

    def spawnProcess(  # noqa: N802
        self, protocol: Any, program: str, arguments: list[str], **others: Any
    ) -> FakeProcess:
        """Keep the process's end of its connection open, as a child does."""
        if self.error is not None:
            raise self.error
        assert program == arguments[0]
        number = others["childFDs"][max(others["childFDs"])]
        self.kept.append(socket.socket(fileno=os.dup(number)))
        self.started.append(FakeProcess(100 + len(self.started), protocol, arguments, others))
        return self.started[-1]

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:  # noqa: N802
        """Make a link over it, without a socket."""
        if self.is_full:
            raise OSError(24, "Too many open files")
        link = factory.buildProtocol(None)
        link.makeConnection(StringTransport())
        self.links.append(link)
        self.kept.append(socket.socket(fileno=os.dup(descriptor)))

    def close(self) -> None:
        """Close what is kept, here and by the workers that were not greeted."""
        for process in self.started:
            if isinstance(process.protocol, WorkerProcess):
                process.protocol.dismiss()
        while self.kept:
            self.kept.pop().close()


def greeting(index: int, boot: int) -> WorkerGreeting:
    """Return what one of two workers is told, without sockets."""
    return WorkerGreeting(index, 2, boot, Inherited())
