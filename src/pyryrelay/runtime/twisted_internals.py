"""Everything that the package uses of Twisted beyond its documented interfaces.

It was read in the version `READ_IN`. Where a newer version has moved something, tests/runtime/test_twisted_internals.py
names it. No other module of the package touches what is listed here:

| of Twisted | what is relied on |
|---|---|
| ``tcp.Connection.bufferSize`` | the most bytes of one read; read anew for each |
| ``tcp.Connection.dataBuffer``, ``offset``, ``_tempDataLen`` | what was written and is not in the kernel yet |
| ``tcp.Connection.protocol`` | called with what is read; looked up for each read, and when the connection is lost |
| ``tcp.Server`` | needs no port if `repr` is overridden; ``logstr`` describes it |
| ``tcp.Connection.socket``, ``connectionLost`` | the socket, which it closes; ends it all, and tells the protocol |
| ``tcp.Connection._shouldShutdown`` | whether it shuts its socket down before it closes it |
| ``tcp.Connection.doRead``, ``writeSomeData`` | for streams; `unix.Server` overrides them to pass descriptors |
| ``tcp.Connection.doRead`` | looked up on the transport for each read; returns None, or why the connection is lost |
| ``policies.ProtocolWrapper.wrappedProtocol`` | the same as ``protocol``, one layer up |
| ``tcp.Port.doRead`` | looked up on the port each time that a connection waits |
| ``tcp.Port.numberAccepts`` | how many connections the next ``doRead`` may accept |
| ``tcp.Port.connected``, ``disconnecting`` | whether it listens, and whether it stops doing so |
| ``tcp.Port._shouldShutdown`` | whether it shuts its socket down before it closes it |
| ``unix.Port._fromListeningDescriptor`` | makes a port of a copy of the descriptor, which does not listen yet |
| ``unix.Port._bindPath``, ``lockFile`` | the file whose mode it sets and that it removes; the lock that it gives back |
| ``unix.Port._logConnectionLostMsg`` | writes the line about its end, looked up on the port |
| ``epollreactor.EPollReactor._poller`` | the `select.epoll`, looked up for each turn and each registration |
| ``asyncioreactor.AsyncioSelectorReactor._asyncioEventloop`` | asyncio's loop; ``_selector._selector`` is the epoll |
| ``base.ReactorBase.seconds`` | the only clock of all timers; looked up on the reactor for each use |
| ``base.ReactorBase.sigTerm``, ``sigInt`` | the signal handlers that the reactor installs when it starts |
| ``process.registerReapProcessHandler``, ``unregisterReapProcessHandler`` | has a process collected |
| ``process.reapProcessHandlers`` | the processes that it collects, by their numbers |
| ``process.ProcessReader`` | reads from a pipe until its end |
| ``logfile.LogFile._file``, ``_openFile`` | the open file, and how it is opened anew |
| ``twistd``'s option ``statusPipe`` | the pipe on which the parent of a daemon waits for one message |
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

from twisted.internet.error import ConnectionDone, ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessProtocol, IProtocol
from twisted.internet.process import (
    ProcessReader,
    reapProcessHandlers,
    registerReapProcessHandler,
    unregisterReapProcessHandler,
)
from twisted.internet.tcp import Connection, Server
from twisted.internet.unix import Port as UnixPort
from twisted.internet.unix import Server as UnixServer
from twisted.protocols.policies import ProtocolWrapper
from twisted.python import log
from twisted.python.failure import Failure
from twisted.python.lockfile import FilesystemLock
from twisted.python.logfile import LogFile
from twisted.python.runtime import seconds as wall_clock

__all__ = [
    "READ_IN",
    "AdoptedProcess",
    "PortlessServer",
    "PortlessUnixServer",
    "ReopenableLogFile",
    "accept_one",
    "adopt_unix_port",
    "collect_orphans",
    "detach_socket",
    "epoll_owner",
    "follows_wall_clock",
    "is_listening",
    "read_chunk",
    "replace_accepting",
    "replace_clock",
    "replace_protocol",
    "replace_reading",
    "replace_stop_handlers",
    "server_transport",
    "set_read_bytes",
    "share_port",
    "status_pipe",
    "unsent_bytes",
    "write_at_once",
]

READ_IN: Final = "26.10.0"


# Connections


class PortlessServer(Server):
    """An accepted connection that no port of Twisted's accepted: pass None for its ``server``."""

    def __repr__(self) -> str:
        return f"<{self.logstr}>"


class PortlessUnixServer(UnixServer):
    """The same on a UNIX socket. It takes no descriptors from its peer."""

    def __init__(self, sock: socket.SocketType, protocol: IProtocol, reactor: Any) -> None:
        super().__init__(sock, protocol, "", None, 0, reactor)  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        return f"<{self.logstr}>"

    def doRead(self) -> Any:
        """Read a chunk."""
        return Connection.doRead(self)

    def writeSomeData(self, data: bytes) -> Any:  # noqa: N802
        """Write a chunk."""
        return Connection.writeSomeData(self, data)


def server_transport(
    sock: socket.SocketType, protocol: IProtocol, peer: tuple[Any, ...] | None, reactor: Any
) -> Connection:
    """Return the transport of a connected socket, which the reactor reads from. Raises `OSError` if it cannot.

    ``peer`` is the address of a TCP peer, None on a UNIX socket.
    """
    if peer is None:
        return PortlessUnixServer(sock, protocol, reactor)
    return PortlessServer(cast(Any, sock), protocol, peer, cast(Any, None), 0, reactor)


def detach_socket(connection: Connection) -> socket.socket:
    """Return the socket of a connection, and end its transport without a trace on the wire.

    The transport tells its protocol that the connection is lost, so give it one that does not mind. What it was asked
    to write and has not sent is discarded. Raises `OSError`, and changes nothing, if there is no descriptor left.
    """
    plain = connection.socket
    taken = socket.socket(plain.family, plain.type, plain.proto, os.dup(plain.fileno()))
    taken.setblocking(False)
    # The other descriptor is of the same connection, so this one must only be closed.
    connection._shouldShutdown = False
    connection.connectionLost(Failure(ConnectionDone()))
    return taken


def write_at_once(transport: Any, data: bytes) -> None:
    """Write what the kernel takes now, unless something waits before it, and leave the rest to the transport.

    `write` alone would wait for the reactor's next turn. An error shows when the transport reads or writes.
    """
    if isinstance(transport, Connection) and transport.connected and not unsent_bytes(transport):
        with suppress(OSError):
            data = data[transport.socket.send(data) :]
    if data:
        transport.write(data)


def set_read_bytes(connection: Connection, size: int) -> None:
    """Read at most ``size`` bytes at once from now on."""
    connection.bufferSize = size


def replace_reading(connection: Connection, read: Callable[[], Exception | None]) -> None:
    """Call ``read`` when there is something to read. It returns why the connection is lost, or None."""
    cast(Any, connection).doRead = read


def read_chunk(connection: Connection) -> Exception | None:
    """Read a chunk as Twisted does, whatever `replace_reading` has replaced: give it to the protocol."""
    return cast(Exception | None, Connection.doRead(connection))


def unsent_bytes(connection: Connection) -> int:
    """Return how many bytes were written that the kernel has not taken yet."""
    return len(connection.dataBuffer) - connection.offset + connection._tempDataLen


def replace_protocol(transport: object, protocol: IProtocol) -> None:
    """Make a transport of Twisted's call another protocol from now on, so that the previous one can be freed."""
    if isinstance(transport, ProtocolWrapper):
        transport.wrappedProtocol = protocol
    elif isinstance(transport, Connection):
        transport.protocol = protocol


# Ports


def replace_accepting(port: Any, accept: Callable[[Callable[[], object]], object]) -> None:
    """Call ``accept`` when connections wait at a port, with the port's own method that accepts them."""
    accept_all: Callable[[], object] = port.doRead
    port.doRead = lambda: accept(accept_all)


def accept_one(port: Any) -> None:
    """Make the next call of a port's method accept one connection at most."""
    port.numberAccepts = 1


def is_listening(port: Any) -> bool:
    """Return whether a port listens and is not stopping."""
    return bool(port.connected and not port.disconnecting)


def adopt_unix_port(reactor: Any, descriptor: int, factory: Any, backlog: int) -> UnixPort:
    """Listen on a copy of a descriptor that listens already, without changing the mode of the socket's file.

    When the port stops, it removes the file and its lock.
    """
    port = UnixPort._fromListeningDescriptor(reactor, descriptor, factory)
    port.backlog = backlog
    path, port._bindPath = port._bindPath, _NO_FILE
    port.startListening()
    port._bindPath = path
    port._shouldShutdown = False
    lock = FilesystemLock(path + b".lock")
    lock.locked = True
    port.lockFile = _Unlocking(lock)
    return cast(UnixPort, port)


class _Unlocking:
    """A lock that another process may have taken over meanwhile, or nobody has."""

    def __init__(self, lock: FilesystemLock) -> None:
        self._lock = lock

    def unlock(self) -> None:
        with suppress(OSError, ValueError):
            self._lock.unlock()


_NO_FILE: Final = b"\0"
"""Not the name of a file, so that a port neither changes nor removes one."""


def share_port(port: Any) -> None:
    """Make a port leave its socket to other processes when it stops: it closes its descriptor, and does no more."""
    port._shouldShutdown = False
    if isinstance(port, UnixPort):
        # The line about its end would have the byte of `_NO_FILE`, and programs such as grep would show no log with it.
        if port._bindPath != _NO_FILE:
            closed = partial(log.msg, f"(UNIX Port {os.fsdecode(port._bindPath)} Closed)")
            port._logConnectionLostMsg = closed  # type: ignore[method-assign]
        port._bindPath, port.lockFile = _NO_FILE, None


# Reactors


def epoll_owner(reactor: object) -> tuple[object, str] | None:
    """Return the object and the name of its attribute that holds a reactor's `select.epoll`; None if unknown."""
    selector = getattr(getattr(reactor, "_asyncioEventloop", None), "_selector", None)
    for owner, name in ((reactor, "_poller"), (selector, "_selector")):
        if getattr(owner, name, None) is not None:
            return owner, name
    return None


def follows_wall_clock(reactor: object) -> bool:
    """Return whether a reactor schedules by the wall clock, as all of Twisted's do by default."""
    return getattr(reactor, "seconds", None) is wall_clock


def replace_clock(reactor: Any, seconds: Callable[[], float]) -> None:
    """Make a reactor schedule by another clock."""
    reactor.seconds = seconds


def replace_stop_handlers(reactor: Any, handler: Callable[[int, object], None]) -> None:
    """Make a reactor that starts install this handler for SIGTERM and SIGINT, instead of its own."""
    reactor.sigTerm = reactor.sigInt = handler


# Processes


class AdoptedProcess:
    """A child of this process that the reactor did not start; a `ProcessProtocol` is told of it as of its own.

    ``pipes`` are the descriptors that its output is read from, by its own: 1 and 2. They are closed at their end.
    """

    def __init__(self, reactor: Any, pid: int, protocol: IProcessProtocol, pipes: Mapping[int, int]) -> None:
        """Tell the protocol from now on; at once, if the process has ended already."""
        self.pid: int | None = pid
        self._protocol = protocol
        self._pipes = dict(pipes)
        for number, descriptor in pipes.items():
            ProcessReader(reactor, self, number, descriptor)
        registerReapProcessHandler(pid, self)

    def signalProcess(self, name: str) -> None:  # noqa: N802
        """Send a signal, named without ``SIG``. Raises `ProcessExitedAlready`."""
        if self.pid is None:
            raise ProcessExitedAlready
        os.kill(self.pid, getattr(signal, f"SIG{name}"))

    # Called by Twisted

    def childDataReceived(self, name: int, data: bytes) -> None:  # noqa: N802
        self._protocol.childDataReceived(name, data)

    def childConnectionLost(self, name: int, reason: Failure) -> None:  # noqa: N802
        # Twisted's readers leave this to the process, too.
        if (descriptor := self._pipes.pop(name, None)) is not None:
            os.close(descriptor)
        self._protocol.childConnectionLost(name)

    def reapProcess(self) -> None:  # noqa: N802
        if self.pid is not None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            unregisterReapProcessHandler(self.pid, self)
            self.processEnded(ended[1])

    def processEnded(self, status: int) -> None:  # noqa: N802
        self.pid = None
        code = os.waitstatus_to_exitcode(status)
        error = ProcessDone(status) if code == 0 else ProcessTerminated(max(code, 0), max(-code, 0) or None, status)
        self._protocol.processExited(Failure(error))


def collect_orphans() -> None:
    """Collect the children of this process that have ended and that nobody here knows."""
    with suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in reapProcessHandlers:
                return  # Twisted is about to collect this one
            os.waitpid(ended.si_pid, os.WNOHANG)


# twistd and its log


def status_pipe(twistd_options: Mapping[str, Any]) -> int | None:
    """Return the descriptor on which the parent of a daemon waits for its status, if this process is a daemon."""
    descriptor: int | None = twistd_options.get("statusPipe")
    return descriptor


class ReopenableLogFile(LogFile):
    """A log file that can be opened anew under its name."""

    _file: Any

    def _openFile(self) -> None:  # noqa: N802
        """Open the file so that everything is appended, whatever another process writes meanwhile.

        Nor does it matter that logrotate's ``copytruncate`` shortens the file.
        """
        super()._openFile()  # type: ignore[no-untyped-call]
        flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags | os.O_APPEND)

    @property
    def descriptor(self) -> int:
        """The descriptor of the open file."""
        number: int = self._file.fileno()
        return number

    def reopen(self) -> None:
        """Open the name anew, then close the previous file. Raises `OSError`, and keeps that file then."""
        previous = self._file
        self._openFile()
        previous.close()

    def reopen_if_closed(self) -> None:
        """Open the name anew if a rotation that failed has left the file closed. Raises `OSError`."""
        if self._file.closed:
            self._openFile()
