"""Child processes: Python programs that exchange frames with the relay over a socket.

The socket is the child's descriptor 0, and works in both directions. A frame is its length in 4 bytes, big-endian, and
its body. A child has no other descriptor of the relay: its standard output is `/dev/null`, and what it writes to
standard error is logged, line by line. It ends by itself at the end of what it reads, so it outlives neither
`ChildProcess.close` nor the relay, however that ends. One that hangs, or is stopped, is killed with the reactor's end.

The signals that end or reload the relay are blocked in children. A terminal sends them to all of its processes, and
systemd does, too; but children must work until the relay has drained.

Sizes are bytes, times are seconds of the reactor's clock.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any, Final

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.runtime.process import why_not_started
from pyryrelay.runtime.twisted_internals import set_read_bytes
from pyryrelay.text import printable

__all__ = [
    "MAX_FRAME_BYTES",
    "ChildProcess",
    "ErrorLines",
    "FrameReader",
    "blocked_signals",
    "outcome_of",
    "start_child",
]

_log = Logger(namespace="pyryrelay")

MAX_FRAME_BYTES: Final = 256 * 1024 * 1024
"""A child that announces a longer frame is broken, and is killed."""
READ_BYTES: Final = 256 * 1024
BUFFER_BYTES: Final = 1024 * 1024
"""What the kernel is asked to buffer in each direction."""
MAX_LINE_BYTES: Final = 500
MAX_LINES: Final = 100
"""Lines of one child that are logged in `LINES_PERIOD_S`; a traceback has about thirty."""
LINES_PERIOD_S: Final = 60.0
EXIT_S: Final = 5.0
"""How long one half of a child, its process or its socket, may outlive the other."""
CLOSE_S: Final = 60.0
"""How long a child may work on what it was sent before `ChildProcess.close`."""

_BLOCKED: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}


class FrameReader:
    """Split what arrives into frames. Call `feed` with each chunk."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the bodies of all frames that are complete. Raises `ValueError` if one is too long."""
        data: bytes | bytearray = chunk
        if self._rest:
            self._rest += chunk
            data = self._rest
        bodies, start, size = [], 0, len(data)
        while size - start >= 4:
            length = int.from_bytes(data[start : start + 4], "big")
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes is announced")
            if size - start - 4 < length:
                break
            bodies.append(bytes(data[start + 4 : start + 4 + length]))
            start += 4 + length
        if data is self._rest:
            del self._rest[:start]
        elif start < size:
            self._rest += chunk[start:]
        return bodies


class ErrorLines:
    """Logs what a child writes to standard error."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._rest = b""
        self._began_s = -LINES_PERIOD_S
        self._count = 0
        self.name = "a child process"

    def feed(self, data: bytes) -> None:
        """Log the lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in filter(None, lines):
            self._write(line)

    def end(self) -> None:
        """Log a last line that has no end."""
        if self._rest:
            self._write(self._rest)
            self._rest = b""

    def _write(self, line: bytes) -> None:
        now = self._now()
        if now - self._began_s >= LINES_PERIOD_S:
            self._began_s, left_out, self._count = now, self._count - MAX_LINES, 0
            if left_out > 0:
                _log.warn("{warning}", warning=f"{self.name}: {left_out} lines were left out")
        self._count += 1
        if self._count <= MAX_LINES:
            text = printable(line[:MAX_LINE_BYTES].decode("utf-8", "replace").rstrip())
            _log.warn("{warning}", warning=f"{self.name}: {text}")


class ChildProcess:
    """A child process; implements `pyryrelay.protocol.Child`. Made by `start_child`."""

    def __init__(self, reactor: Any, received: Callable[[bytes], None], ended: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._received = received
        self._ended = ended
        self.lines = ErrorLines(reactor.seconds)
        self.pid: int | None = None
        """The number of the process; None if it could not be started."""
        self.process: Any = None
        self.transport: Any = None
        self._exit: str | None = None
        self._problem = ""
        self._is_disconnected = False
        self._has_ended = False
        self._deadline: IDelayedCall | None = None
        self._trigger: Any = None

    def send(self, body: bytes) -> None:
        """Send one frame. Does nothing once the child has ended, or was closed."""
        if self.transport is not None:
            self.transport.writeSequence((len(body).to_bytes(4, "big"), body))

    def close(self) -> None:
        """Let the child end when it has read what was sent. Its frames are still received until then."""
        if self.transport is not None:
            self.transport.loseWriteConnection()
            self.transport = None
            self._within(CLOSE_S, self._kill)

    def kill(self) -> None:
        """End the child at once, whatever it does."""
        self._kill()

    # Called by the protocols below

    def received(self, body: bytes) -> None:
        """Hand over a frame."""
        self._received(body)

    def disconnected(self) -> None:
        """Record the end of the socket, after which the process has to end."""
        self.transport = None
        self._is_disconnected = True
        self._settle(self._kill)

    def exited(self, outcome: str, abort: Callable[[], None]) -> None:
        """Record the end of the process, after which the socket has to end."""
        self._exit = outcome
        self._settle(abort)

    def failed(self, problem: str) -> None:
        """Record that the process could not be started."""
        self._exit, self._is_disconnected = problem, True
        self._within(0, lambda: self._settle(self._kill))

    def unreachable(self, problem: str) -> None:
        """Record that the process runs, but cannot be talked to. It is killed, and has ended for that reason."""
        self._problem, self._is_disconnected = problem, True
        self._kill()

    def _settle(self, otherwise: Callable[[], None]) -> None:
        if self._exit is None or not self._is_disconnected:
            self._within(EXIT_S, otherwise)
            return
        self._cancel()
        if not self._has_ended:
            self._has_ended = True
            if self._trigger is not None:
                self._reactor.removeSystemEventTrigger(self._trigger)
            self._ended(self._problem or self._exit)

    def _within(self, seconds: float, call: Callable[[], None]) -> None:
        self._cancel()
        self._deadline = self._reactor.callLater(seconds, call)

    def _cancel(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def started(self, process: Any) -> None:
        """Record that the process has started, and end it with the reactor if nothing else does."""
        self.process, self.pid = process, process.pid
        self.lines.name = f"child process {self.pid}"
        self._trigger = self._reactor.addSystemEventTrigger("after", "shutdown", self._kill_at_the_end)

    def _kill_at_the_end(self) -> None:
        self._trigger = None  # the reactor has taken it off its list already
        self._kill()

    def _kill(self) -> None:
        if self._exit is None:
            self.process.signalProcess("KILL")


class _Process(ProcessProtocol):
    """Tells a child about its process."""

    def __init__(self, child: ChildProcess, abort: Callable[[], None]) -> None:
        self._child = child
        self._abort = abort

    def errReceived(self, data: bytes) -> None:  # noqa: N802
        self._child.lines.feed(data)

    def errConnectionLost(self) -> None:  # noqa: N802
        self._child.lines.end()

    def processExited(self, reason: Failure) -> None:  # noqa: N802
        self._child.exited(outcome_of(reason), self._abort)


class _Socket(Protocol):
    """Hands a child's frames over."""

    def __init__(self, child: ChildProcess) -> None:
        self._child = child
        self._frames = FrameReader()

    def dataReceived(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            self._child.received(body)

    def connectionMade(self) -> None:
        transport: object = self.transport
        if isinstance(transport, Connection):
            set_read_bytes(transport, READ_BYTES)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._child.disconnected()

    def abort(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]


class _SocketFactory(Factory):
    noisy = False

    def __init__(self, protocol: _Socket) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> _Socket:
        return self._protocol


def start_child(
    reactor: Any,
    arguments: Sequence[str],
    received: Callable[[bytes], None],
    ended: Callable[[str], None],
    inherited: Sequence[int] = (),
) -> ChildProcess:
    """Start this Python with ``arguments``; see `pyryrelay.protocol.Services`.

    The child gets the descriptors of ``inherited`` as 3, 4, and so on. Never raises: if the process cannot be started,
    ``ended`` is called in a later turn.
    """
    child = ChildProcess(reactor, received, ended)
    protocol = _Socket(child)
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        child.failed(why_not_started(error))
        return child
    with ours, theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        ours.setblocking(False)
        try:
            process = _spawn(reactor, arguments, [theirs.fileno(), *inherited], _Process(child, protocol.abort))
        except OSError as error:
            child.failed(why_not_started(error))
            return child
        child.started(process)
        try:
            reactor.adoptStreamConnection(ours.fileno(), ours.family, _SocketFactory(protocol))
        except OSError as error:
            child.unreachable(why_not_started(error))
            return child
    child.transport = protocol.transport
    return child


def _spawn(reactor: Any, arguments: Sequence[str], descriptors: Sequence[int], protocol: _Process) -> Any:
    """Start the process with the first descriptor as its 0, and the others from 3 on. Raises `OSError`."""
    # Without -P the current folder would come first among those that modules are imported from.
    command = [sys.executable, "-P", *arguments]
    end, *others = descriptors
    with open(os.devnull, "wb") as nothing, blocked_signals(_BLOCKED):
        mapped: dict[int, int | str] = {0: end, 1: nothing.fileno(), 2: "r", **dict(enumerate(others, 3))}
        return reactor.spawnProcess(protocol, command[0], command, env=None, childFDs=mapped)


@contextmanager
def blocked_signals(numbers: AbstractSet[signal.Signals]) -> Iterator[None]:
    """Block signals in this thread, which a process that is started meanwhile inherits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outcome_of(reason: Failure) -> str:
    """Return how a process ended, for the log."""
    error = reason.value
    if isinstance(error, ProcessDone):
        return "exit code 0"
    if isinstance(error, ProcessTerminated) and error.signal is not None:
        return f"signal {error.signal}"
    return f"exit code {getattr(error, 'exitCode', None)}"
