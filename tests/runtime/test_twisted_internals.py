"""What is relied on of Twisted's internals: each test fails with the name of what a newer version has moved."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest
import twisted
from tests.support.moved import Library
from twisted.internet.address import IPv4Address
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.process import reapAllProcesses, reapProcessHandlers
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.internet.tcp import Port
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.scripts import _twistd_unix
from zope.interface import implementer

from pyryrelay.runtime import twisted_internals
from pyryrelay.runtime.twisted_internals import (
    READ_IN,
    AdoptedProcess,
    PortlessServer,
    ReopenableLogFile,
    accept_one,
    adopt_unix_port,
    collect_orphans,
    detach_socket,
    epoll_owner,
    follows_wall_clock,
    is_listening,
    read_chunk,
    replace_accepting,
    replace_clock,
    replace_protocol,
    replace_reading,
    replace_stop_handlers,
    server_transport,
    set_read_bytes,
    share_port,
    status_pipe,
    unsent_bytes,
    write_at_once,
)

TWISTED = Library("Twisted", READ_IN, twisted.__version__, "pyryrelay.runtime.twisted_internals")


class Recorder(Protocol):
    """Records what it is told."""

    def __init__(self) -> None:
        self.received = b""
        self.is_lost = False

    def dataReceived(self, data: bytes) -> None:
        """Record."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Record."""
        self.is_lost = True


Peer = tuple[Any, Recorder, socket.socket]


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A transport that no port accepted, its protocol, and the peer's socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    protocol = Recorder()
    no_port, reactor = cast(Any, None), cast(Any, MemoryReactorClock())
    server = PortlessServer(ours, protocol, ("198.51.100.7", 50000), no_port, 7, reactor)
    cast(Any, protocol).makeConnection(server)
    with ours, theirs:
        yield server, protocol, theirs


def test_a_server_needs_no_port(peer: Peer) -> None:
    """A connection without a port describes itself, and knows its peer."""
    server, _, _ = peer
    with TWISTED.relied_on("tcp.Server", "it needs no port, and logstr describes it"):
        assert repr(server) == "<Recorder,7,198.51.100.7>"
        assert server.getPeer() == IPv4Address("TCP", "198.51.100.7", 50000)


def test_a_socket_that_is_detached(peer: Peer) -> None:
    """The transport ends, its protocol is told so, and the connection stays open on the socket that is returned."""
    server, protocol, theirs = peer
    theirs.sendall(b"unread")
    with TWISTED.relied_on("tcp.Connection._shouldShutdown, socket, connectionLost", "they end it without shutdown"):
        with detach_socket(server) as taken:
            assert protocol.is_lost
            assert server.fileno() == -1
            assert server.reactor.getReaders() == []
            assert taken.recv(9) == b"unread"
            taken.sendall(b"answer")
            assert theirs.recv(9) == b"answer"
            assert not taken.getblocking()
        assert theirs.recv(9) == b""


def test_a_socket_that_cannot_be_detached(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor for the copy everything stays as it is."""
    server, protocol, theirs = peer

    def full(descriptor: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "dup", full)
    with pytest.raises(OSError, match="open files"):
        detach_socket(server)
    assert not protocol.is_lost
    theirs.sendall(b"still here")
    server.doRead()
    assert protocol.received == b"still here"


@pytest.mark.parametrize("address", [("198.51.100.7", 50000), ("2001:db8::7", 50000, 0, 0), None])
def test_a_transport_for_a_socket(address: tuple[Any, ...] | None) -> None:
    """It reads and writes, knows its peer, and on a UNIX socket takes no descriptors."""
    ours, theirs = socket.socketpair()
    protocol, reactor = Recorder(), MemoryReactorClock()
    with ours, theirs, TWISTED.relied_on("tcp.Connection.doRead, writeSomeData", "they are for streams"):
        transport: Any = server_transport(ours, cast(Any, protocol), address, reactor)
        cast(Any, protocol).makeConnection(transport)
        assert "Recorder" in repr(transport)
        assert getattr(transport.getPeer(), "host", None) == (None if address is None else address[0])
        opened = len(os.listdir("/proc/self/fd"))
        socket.send_fds(theirs, [b"data"], [theirs.fileno()] * 3)
        transport.doRead()
        assert protocol.received == b"data"
        assert len(os.listdir("/proc/self/fd")) == opened
        transport.write(b"answer")
        transport.doWrite()
        assert theirs.recv(9) == b"answer"


def test_what_is_written_at_once(peer: Peer) -> None:
    """The kernel gets what it takes, unless something waits before it; errors are left to the transport."""
    server, _, theirs = peer
    write_at_once(server, b"now")
    assert theirs.recv(9) == b"now"
    server.write(b"later")
    write_at_once(server, b", in order")
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(9)
    server.doWrite()
    assert theirs.recv(99) == b"later, in order"
    write_at_once(server, bytes(1 << 22))
    assert 0 < unsent_bytes(server) < 1 << 22
    other = StringTransport()
    write_at_once(other, b"any transport")
    assert other.value() == b"any transport"


def test_what_is_written_at_once_to_a_peer_that_is_gone(peer: Peer) -> None:
    """Nothing is raised."""
    server, _, theirs = peer
    theirs.close()
    write_at_once(server, b"now")
    assert unsent_bytes(server) == 3


def test_how_much_is_read_at_once(peer: Peer) -> None:
    """Each read takes what `set_read_bytes` says."""
    server, protocol, theirs = peer
    theirs.sendall(bytes(100))
    with TWISTED.relied_on("tcp.Connection.bufferSize", "it limits each read"):
        for size, received in ((10, 10), (30, 40)):
            set_read_bytes(server, size)
            server.doRead()
            assert len(protocol.received) == received


def test_another_function_reads(peer: Peer) -> None:
    """The transport is read from by a function that was set, which may read as Twisted does."""
    server, protocol, theirs = peer
    read: list[str] = []

    def count() -> Exception | None:
        read.append("read")
        return read_chunk(server)

    with TWISTED.relied_on("tcp.Connection.doRead", "it is looked up on the transport, and returns why it is lost"):
        replace_reading(server, count)
        theirs.sendall(b"data")
        assert server.doRead() is None
        assert (read, protocol.received) == (["read"], b"data")
        theirs.close()
        assert isinstance(server.doRead(), ConnectionDone)


def test_what_is_not_sent_yet(peer: Peer) -> None:
    """What was written waits in up to three places until the kernel has taken it."""
    server, _, theirs = peer
    theirs.setblocking(False)
    with TWISTED.relied_on("tcp.Connection.dataBuffer, offset, _tempDataLen", "they hold what is not sent"):
        assert unsent_bytes(server) == 0
        server.write(bytes(1 << 20))
        server.write(bytes(10))
        assert unsent_bytes(server) == (1 << 20) + 10
        taken = 0
        while unsent_bytes(server):
            server.doWrite()
            server.write(b"+" if taken == 0 else b"")
            with contextlib.suppress(BlockingIOError):
                while True:
                    taken += len(theirs.recv(1 << 16))
            assert taken + unsent_bytes(server) == (1 << 20) + 11


def test_a_transport_speaks_to_another_protocol(peer: Peer) -> None:
    """What is read, and the loss of the connection, go to the protocol that was set last."""
    server, protocol, theirs = peer
    other = Recorder()
    with TWISTED.relied_on("tcp.Connection.protocol", "it is looked up for each call"):
        replace_protocol(server, other)
        theirs.sendall(b"data")
        server.doRead()
        server.connectionLost(Failure(ConnectionError()))
        assert (protocol.received, protocol.is_lost) == (b"", False)
        assert (other.received, other.is_lost) == (b"data", True)


def test_a_wrapper_speaks_to_another_protocol() -> None:
    """The same for a transport that is a layer above another one."""
    protocol, other = Recorder(), Recorder()
    with TWISTED.relied_on("policies.ProtocolWrapper.wrappedProtocol", "it is looked up for each call"):
        wrapper = ProtocolWrapper(WrappingFactory(Factory()), protocol)
        wrapper.makeConnection(StringTransport())
        replace_protocol(wrapper, other)
        wrapper.dataReceived(b"data")
        assert (protocol.received, other.received) == (b"", b"data")


def test_other_transports_keep_their_protocol() -> None:
    """A transport of another kind is left unchanged."""
    transport = StringTransport()
    before = dict(vars(transport))
    replace_protocol(transport, Protocol())
    assert vars(transport) == before


def test_a_port_is_made_to_accept_otherwise() -> None:
    """Waiting connections are accepted by our method, one at a time if it says so."""
    reactor = EPollReactor()
    factory = Factory.forProtocol(Recorder)
    port = Port(0, factory, 50, "127.0.0.1", reactor)
    asked: list[object] = []
    try:
        with TWISTED.relied_on("tcp.Port.doRead, numberAccepts, connected, disconnecting", "they steer accepting"):
            assert not is_listening(port)
            port.startListening()
            assert is_listening(port)

            def accept(accept_all: Any) -> object:
                asked.append(accept_all)
                accept_one(port)
                return accept_all()

            replace_accepting(port, accept)
            address = port.socket.getsockname()
            with socket.create_connection(address), socket.create_connection(address):
                before = len(reactor.getReaders())
                reactor.doIteration(1)
                assert len(asked) == 1
                assert len(reactor.getReaders()) == before + 1
            port.loseConnection()
            assert not is_listening(port)
            port.connectionLost(Failure(ConnectionError()))
    finally:
        for reader in reactor.removeAll():
            reader.connectionLost(Failure(ConnectionError()))
        reactor._poller.close()


class CountingPoll:
    """A poll object between a reactor and its own."""

    def __init__(self, poll: Any) -> None:
        self._poll = poll
        self.turns = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poll, name)

    def poll(self, *arguments: Any) -> Any:
        """Count."""
        self.turns += 1
        return self._poll.poll(*arguments)


@pytest.mark.parametrize("kind", ["epoll", "asyncio"])
def test_where_a_reactor_keeps_its_poll_object(kind: str) -> None:
    """The poll object that `epoll_owner` leads to is the one that each turn asks."""
    name = "_poller" if kind == "epoll" else "_asyncioEventloop._selector._selector"
    with TWISTED.relied_on(f"{kind}reactor: {name}", "it is the poll object"):
        loop = asyncio.SelectorEventLoop() if kind == "asyncio" else None
        reactor: Any = EPollReactor() if loop is None else AsyncioSelectorReactor(loop)
        try:
            found = epoll_owner(reactor)
            assert found is not None
            poll = getattr(*found)
            assert isinstance(poll, select.epoll)
            counting = CountingPoll(poll)
            setattr(*found, counting)
            if loop is None:
                reactor.doIteration(0)
                poll.close()
            else:
                # The tests may run under a loop of their own, and a thread has no more than one.
                thread = Thread(target=loop.run_until_complete, args=[loop.shutdown_asyncgens()])
                thread.start()
                thread.join()
            assert counting.turns > 0
        finally:
            if loop is not None:
                loop.close()
    assert epoll_owner(object()) is None


def test_a_reactor_has_one_clock() -> None:
    """All timers of a reactor go by the clock that replaces its own."""
    with TWISTED.relied_on("base.ReactorBase.seconds", "it is the clock of all timers"):
        reactor: Any = EPollReactor()
        reactor._poller.close()
        assert follows_wall_clock(reactor)
        now_s = 5.0
        replace_clock(reactor, lambda: now_s)
        assert not follows_wall_clock(reactor)
        called: list[int] = []
        reactor.callLater(2, called.append, 1)
        assert reactor.timeout() == 2
        now_s = 7.0
        reactor.runUntilCurrent()
        assert called == [1]


def test_a_reactor_installs_our_signal_handlers() -> None:
    """A reactor that starts installs the handler that replaces its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: object) -> None:
        """Never called."""

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with TWISTED.relied_on("base.ReactorBase.sigTerm, sigInt", "they are installed when the reactor starts"):
            reactor: Any = EPollReactor()
            reactor._poller.close()
            replace_stop_handlers(reactor, stop)
            ReactorBase._signalsFactory(reactor).install()
            assert [signal.getsignal(number) for number in before] == [stop, stop]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_parent_of_a_daemon_waits_on_a_pipe() -> None:
    """twistd keeps the pipe's descriptor among its options."""
    with TWISTED.relied_on("scripts._twistd_unix: statusPipe", "the parent of a daemon waits on it"):
        assert '"statusPipe"' in Path(_twistd_unix.__file__).read_text(encoding="utf-8")
    assert status_pipe({}) is None
    assert status_pipe({"statusPipe": 5}) == 5


def test_a_log_file_is_opened_anew(tmp_path: Path) -> None:
    """After `reopen` lines go to the file that has the name now; a file that was closed is open again."""
    path = tmp_path / "log"
    with TWISTED.relied_on("logfile.LogFile._file, _openFile", "they are the open file, and open it"):
        log = cast(Any, ReopenableLogFile)(path.name, str(tmp_path))
        log.write("before")
        path.rename(tmp_path / "moved")
        descriptor = log.descriptor
        log.reopen()
        log.write("after")
        assert path.read_text() == "after"
        assert (tmp_path / "moved").read_text() == "before"
        assert log.descriptor >= 0
        assert descriptor >= 0
        log.reopen_if_closed()
        log._file.close()
        log.reopen_if_closed()
        log.write("!")
        assert path.read_text() == "after!"
        log.close()


def test_a_moved_internal_is_named() -> None:
    """The failure names the attribute, the version in which it was read, and the installed one."""
    library = Library("Twisted", "1.0", "2.0", "the module")
    with (
        pytest.raises(pytest.fail.Exception, match=r"_gone of Twisted: it works.*read in Twisted 1\.0.*installed 2\.0"),
        library.relied_on("_gone", "it works"),
    ):
        object().__getattribute__("_gone")


def test_a_port_of_a_unix_socket_that_listens_already(tmp_path: Path) -> None:
    """It changes neither the mode nor the length of the queue, and removes the file; a shared one leaves it."""
    reactor = EPollReactor()
    for is_shared in (False, True):
        path = tmp_path / str(is_shared)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            path.chmod(0o600)
            listening.listen(3)
            with TWISTED.relied_on("unix.Port._fromListeningDescriptor, _bindPath, lockFile", "they adopt a socket"):
                port: Any = adopt_unix_port(reactor, listening.fileno(), Factory(), 3)
                assert path.stat().st_mode & 0o777 == 0o600
                if is_shared:
                    share_port(port)
                port.connectionLost(None)
                assert path.exists() == is_shared


def test_the_line_about_the_end_of_a_shared_port(tmp_path: Path) -> None:
    """It names the socket, and has no NUL, which would make a log a binary file."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(3)
        port: Any = adopt_unix_port(EPollReactor(), listening.fileno(), Factory(), 3)
    share_port(port)
    share_port(port)
    told: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        told.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        with TWISTED.relied_on("unix.Port._logConnectionLostMsg", "it writes the line"):
            port.connectionLost(None)
            assert told[0] == f"(UNIX Port {path} Closed)"
    finally:
        globalLogPublisher.removeObserver(observe)


def test_a_shared_port_is_not_shut_down() -> None:
    """The other process goes on accepting on the same socket."""
    port: Any = Port(0, Factory(), 50, "127.0.0.1", EPollReactor())
    port.startListening()
    with port.socket.dup() as other, TWISTED.relied_on("tcp.Port._shouldShutdown", "it prevents shutdown(2)"):
        share_port(port)
        port.connectionLost(None)
        with socket.create_connection(other.getsockname()):
            other.accept()[0].close()


def test_every_entry_of_the_list_has_a_test() -> None:
    """Each attribute in the module's docstring is named by one of these tests."""
    listed = {
        name.split(".")[-1]
        for row in (twisted_internals.__doc__ or "").splitlines()
        if row.startswith("| ``")
        for name in row.split("|")[1].replace("``", "").replace(",", " ").replace("'s option", " ").split()
    } - {"twistd"}
    source = Path(__file__).read_text(encoding="utf-8")
    named = "\n".join(line for line in source.splitlines() if "relied_on(" in line or "name =" in line)
    assert {name for name in listed if name not in named} == set()
    assert len(listed) > 10


# Processes


class Child(ProcessProtocol):
    """Records what it is told of a process."""

    def __init__(self) -> None:
        self.output = b""
        self.errors = b""
        self.outcomes: list[BaseException | None] = []

    def outReceived(self, data: bytes) -> None:  # noqa: N802
        """Record."""
        self.output += data

    def errReceived(self, data: bytes) -> None:  # noqa: N802
        """Record."""
        self.errors += data

    def processExited(self, reason: Failure) -> None:  # noqa: N802
        """Record."""
        self.outcomes.append(reason.value)


def started(code: str) -> tuple[int, dict[int, int]]:
    """Start a process that the reactor does not know, and return its number and what its output is read from."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    pipes = {1: os.dup(process.stdout.fileno()), 2: os.dup(process.stderr.fileno())}
    process.stdout.close()
    process.stderr.close()
    process.returncode = 0  # it is collected elsewhere
    return process.pid, pipes


def test_a_process_that_is_adopted() -> None:
    """Its protocol gets its output and its end, as if the reactor had started it."""
    reactor, child = MemoryReactorClock(), Child()
    pid, pipes = started("import os, time; os.write(1, b'out'); os.write(2, b'err'); time.sleep(60)")
    with TWISTED.relied_on("process.ProcessReader", "it reads from a pipe"):
        process = AdoptedProcess(reactor, pid, child, pipes)
        for reader in reactor.getReaders():
            select.select([reader.fileno()], [], [], 10)
            reader.doRead()
        assert {child.output, child.errors} <= {b"out", b"err", b""}
    process.signalProcess("KILL")
    with TWISTED.relied_on("process.registerReapProcessHandler, unregisterReapProcessHandler", "it collects these"):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        collect_orphans()
        reapAllProcesses()
        assert isinstance(child.outcomes[0], ProcessTerminated)
        assert child.outcomes[0].signal == signal.SIGKILL
    with pytest.raises(ProcessExitedAlready):
        process.signalProcess("KILL")
    for reader in reactor.getReaders():
        reader.connectionLost(Failure(ConnectionDone()))
    for descriptor in pipes.values():
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_process_that_has_ended_before_it_was_adopted() -> None:
    """Its protocol is told at once."""
    child = Child()
    pid, pipes = started("")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    for descriptor in pipes.values():
        os.close(descriptor)
    assert AdoptedProcess(MemoryReactorClock(), pid, child, {}).pid is None
    assert isinstance(child.outcomes[0], ProcessDone)


def test_orphans() -> None:
    """Children that nobody knows are collected."""
    pid, pipes = started("")
    for descriptor in pipes.values():
        os.close(descriptor)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    collect_orphans()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    with TWISTED.relied_on("process.reapProcessHandlers", "it has all processes that are collected elsewhere"):
        assert isinstance(reapProcessHandlers, dict)
