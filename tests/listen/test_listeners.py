"""Which endpoints are opened with an acceptor, on real sockets of loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.support.harness import LogReader, World, client_of, request_head
from tests.support.listening import LOCALHOST, own_reactor
from tests.support.tls_peers import endpoint_arguments
from twisted.internet import endpoints
from twisted.internet.protocol import Factory
from twisted.python.systemd import ListenFDs

from pyryrelay.guard import ClientAddress, Reason
from pyryrelay.listen.accept import Acceptor, AcceptReactor
from pyryrelay.listen.kernel.bpf import filter_program
from pyryrelay.listen.kernel.reuseport import QUEUE_LENGTH, DropSocket
from pyryrelay.listen.listeners import ListenError, Listeners
from pyryrelay.listen.tls.accept import TlsSocketHandler
from pyryrelay.listen.tls.transport import TlsFactory

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux does this")
LISTED = "127.0.0.2"


@pytest.fixture(scope="module")
def reactor() -> Iterator[Any]:
    """One reactor for all tests here."""
    with own_reactor() as reactor:
        yield reactor


@pytest.fixture
def listeners(reactor: Any) -> Iterator[Listeners]:
    """Listeners without a port, which are closed in the end."""
    listeners = Listeners(reactor)
    yield listeners
    listeners.close()
    reactor.runUntilCurrent()


def opened(reactor: Any) -> list[str]:
    """Return the types of what the reactor reads from."""
    return sorted(type(reader).__name__ for reader in reactor.getReaders())


@pytest.mark.parametrize(
    ("text", "host"),
    [
        (f"tcp:0:interface={LOCALHOST}", LOCALHOST),
        (r"tcp:0:interface=\:\:1", "::1"),
        (r"tcp6:0:interface=\:\:1", "::1"),
    ],
)
def test_plain_tcp_has_an_acceptor(reactor: Any, listeners: Listeners, text: str, host: str) -> None:
    """Plain TCP of both families gets an acceptor, whose socket can have a filter."""
    listeners.open("--listen", text, World().http_factory)
    (acceptor,) = (reader for reader in reactor.getReaders() if isinstance(reader, Acceptor))
    assert listeners.sockets == [acceptor.socket]
    assert acceptor.getHost().host == host


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the arguments of an ``ssl:`` endpoint."""
    return f"{endpoint_arguments(tmp_path_factory.mktemp('keys'))}:interface={LOCALHOST}"


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
def test_tls_has_an_acceptor(reactor: Any, listeners: Listeners, keys: str) -> None:
    """TLS gets an acceptor, whose socket can have a filter and a drop socket."""
    listeners.open("--listen", f"ssl:0:{keys}", World().http_factory)
    (acceptor,) = (reader for reader in reactor.getReaders() if isinstance(reader, Acceptor))
    assert isinstance(acceptor.handler, TlsSocketHandler)
    assert listeners.sockets == [acceptor.socket]
    if sys.platform.startswith("linux"):
        assert len(listeners.open_drop_sockets()) == 1


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest.mark.parametrize("is_fit", [True, False])
def test_tls_without_an_acceptor(
    listeners: Listeners, keys: str, monkeypatch: pytest.MonkeyPatch, is_fit: bool
) -> None:
    """Behind a PROXY header, or under another reactor, Twisted's port has our TLS."""
    monkeypatch.setattr(AcceptReactor, "fit", staticmethod(lambda reactor: is_fit))
    listeners.open("--listen", f"{'haproxy:' if is_fit else ''}ssl:0:{keys}", World().http_factory)
    (port,) = listeners._ports
    assert not isinstance(port, Acceptor)
    assert isinstance(port.factory, TlsFactory)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "factory"),
    [
        (f"tcp:0:interface={LOCALHOST}", Factory()),
        (f"haproxy:tcp:0:interface={LOCALHOST}", World().http_factory),
        ("unix:{tmp_path}/relay", World().http_factory),
    ],
)
def test_others_are_twisteds_own(
    reactor: Any, listeners: Listeners, tmp_path: Any, text: str, factory: Factory
) -> None:
    """Other factories, and endpoints that are no plain TCP, get Twisted's ports."""
    before = opened(reactor)
    listeners.open("--listen", text.format(tmp_path=tmp_path), factory)
    assert listeners
    assert "Acceptor" not in opened(reactor)
    assert len(opened(reactor)) == len(before) + 1


@pytest.mark.parametrize(
    ("text", "cause", "fix"),
    [
        ("tcp:{port}:interface=127.0.0.1", "Address already in use", "process {pid}, listens there; stop it"),
        ("tcp:0:interface=192.0.2.1", "Cannot assign requested address", "has '192.0.2.1'; `ip address` shows"),
        ("tcp:0:interface=127.0.0.1:x=1", "unexpected keyword argument", "; choose another endpoint"),
    ],
)
def test_an_acceptor_that_cannot_listen(listeners: Listeners, text: str, cause: str, fix: str) -> None:
    """An acceptor that cannot listen is one line with option, value, cause and fix, as for other endpoints."""
    listeners.open("--listen", f"tcp:0:interface={LOCALHOST}", World().http_factory)
    (taken,) = listeners.sockets
    text = text.format(port=taken.getsockname()[1])
    with pytest.raises(ListenError) as caught:
        listeners.open("--listen", text, World().http_factory)
    line = str(caught.value)
    assert line.startswith(f"--listen {text!r}: cannot listen: ")
    assert cause in line
    assert fix.format(pid=os.getpid()) in line


@pytest.mark.parametrize(
    ("text", "asked", "mode"), [("unix:s", 0o600, 0o600), ("unix:s:mode=660", 0o600, 0o660), ("unix:s", None, 0o666)]
)
def test_who_may_connect_to_a_unix_socket(
    listeners: Listeners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, asked: int | None, mode: int
) -> None:
    """The mode of a UNIX socket is that of the endpoint, else the default, else 666."""
    monkeypatch.chdir(tmp_path)
    listeners.open("--admin-listen", text, Factory(), unix_mode=asked)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode


@pytest.fixture
def handed_down(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A listening socket that systemd hands down."""
    with socket.create_server((LOCALHOST, 0)) as sock:
        monkeypatch.setattr(endpoints._SystemdParser, "_sddaemon", ListenFDs([os.dup(sock.fileno())]))
        yield sock


@linux
def test_where_there_are_drop_sockets(listeners: Listeners, tmp_path: Path, handed_down: socket.socket) -> None:
    """Each TCP socket that was opened here gets a drop socket; those of systemd, which outlive the relay, do not."""
    for text, factory in (
        (f"tcp:0:interface={LOCALHOST}", World().http_factory),
        (r"tcp:0:interface=\:\:1", Factory()),
        ("systemd:domain=INET:index=0", World().http_factory),
        (f"unix:{tmp_path}/relay", World().http_factory),
        (f"tcp:0:interface={LOCALHOST}", World().http_factory),
    ):
        listeners.open("--listen", text, factory)
    shared = listeners.sockets[-1]
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    assert len(listeners.open_drop_sockets()) == 2
    assert [(sock.getsockname(), why) for sock, why in listeners.without_drop_socket.items()] == [
        (handed_down.getsockname(), "the socket was handed down"),
        (shared.getsockname(), "other sockets share the port"),
    ]
    assert not handed_down.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


@pytest.fixture(params=[True, False], ids=["acceptor", "port"])
def has_acceptor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Tell whether there is an acceptor or a port of Twisted's; addresses of loopback can be jailed."""
    monkeypatch.setattr(AcceptReactor, "fit", lambda *arguments: request.param)
    monkeypatch.setattr(ClientAddress, "is_loopback", property(lambda self: False))
    return bool(request.param)


class QueuedConnections:
    """A listener with a drop socket, which gets the connections of one address; ``world`` is behind both."""

    def __init__(self, reactor: Any, listeners: Listeners, factory: Any, world: World) -> None:
        self.reactor, self.listeners, self.world = reactor, listeners, world
        listeners.open("--listen", f"tcp:0:interface={LOCALHOST}", factory)
        (self.listening,) = listeners.sockets
        (self.drop_socket,) = listeners.open_drop_sockets()
        self.drop_socket.attach(filter_program([ip_network(LISTED)]))
        self.peers: list[socket.socket] = []

    def connect(self, data: bytes = b"", wait_s: float = 5.0) -> socket.socket:
        """Connect from the listed address."""
        sock = socket.socket()
        self.peers.append(sock)
        sock.bind((LISTED, 0))
        sock.settimeout(wait_s)
        sock.connect(self.listening.getsockname())
        sock.sendall(data)
        return sock

    def turn(self) -> None:
        """Run a few turns of the reactor."""
        for _ in range(5):
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0)

    def close(self) -> None:
        """Close the drop socket and all peers."""
        self.drop_socket.close()
        for sock in self.peers:
            sock.close()
        self.turn()


@contextlib.contextmanager
def queued_connections(reactor: Any, listeners: Listeners, factory: Any, world: World) -> Iterator[QueuedConnections]:
    """Make a listener with a drop socket, and leave nothing behind."""
    found = QueuedConnections(reactor, listeners, factory, world)
    try:
        yield found
    finally:
        found.close()


@linux
@pytest.mark.usefixtures("has_acceptor")
def test_connections_of_a_drop_socket(reactor: Any, listeners: Listeners) -> None:
    """Queued connections of jailed addresses are counted and cut off, and others are served."""
    world = World()
    client = client_of(LISTED)
    with queued_connections(reactor, listeners, world.http_factory, world) as found:
        world.gate.jail.add(client.key, 100.0, world.clock.seconds())
        jailed = [found.connect(request_head()) for _ in range(3)]
        found.turn()
        assert world.observer.counts[Reason.JAILED] == 0
        listeners.receive_queued()
        found.turn()
        assert world.observer.counts[Reason.JAILED] == 3
        for sock in jailed:
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        world.gate.jail.release(client.key)
        freed = found.connect(request_head())
        listeners.receive_queued()
        found.turn()
        assert freed.recv(100).startswith(b"HTTP/1.1 101 ")


@linux
def test_queued_connections_that_cannot_be_watched(
    reactor: Any, listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queued connection that the reactor cannot watch ends, and the others are served."""
    world = World()
    with queued_connections(reactor, listeners, world.http_factory, world) as found:
        add = reactor.addReader
        refused: list[object] = []

        def refuse_first(reader: object) -> None:
            if not refused:
                refused.append(reader)
                raise OSError(28, "No space left on device")
            add(reader)

        monkeypatch.setattr(reactor, "addReader", refuse_first)
        first, second = (found.connect(b"G") for _ in range(2))
        with LogReader() as log:
            listeners.receive_queued()
        found.turn()
        assert len(refused) == len(log.events) == 1
        assert first.recv(1) == b""
        second.sendall(request_head()[1:])
        found.turn()
        assert second.recv(100).startswith(b"HTTP/1.1 101 ")


@linux
def test_queued_connections_that_were_reset(reactor: Any, listeners: Listeners, has_acceptor: bool) -> None:
    """Queued connections that were reset are counted by an acceptor, and do not affect others."""
    world = World()
    with queued_connections(reactor, listeners, world.http_factory, world) as found:
        world.gate.jail.add(client_of(LISTED).key, 100.0, world.clock.seconds())
        gone = found.connect()
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
        found.connect(request_head())
        listeners.receive_queued()
        found.turn()
        assert world.observer.counts[Reason.JAILED] == (2 if has_acceptor else 1)


@linux
def test_queued_connections_without_a_descriptor(
    reactor: Any, listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a descriptor queued connections wait for the next time."""
    world = World()

    def fail(self: DropSocket) -> Iterator[object]:
        raise OSError(24, "Too many open files")

    with queued_connections(reactor, listeners, world.http_factory, world) as found:
        peer = found.connect(request_head())
        with monkeypatch.context() as patch:
            patch.setattr(DropSocket, "queued", fail)
            listeners.receive_queued()
        listeners.receive_queued()
        found.turn()
        assert peer.recv(100).startswith(b"HTTP/1.1 101 ")


@linux
def test_the_queue_is_bounded(reactor: Any, listeners: Listeners) -> None:
    """Connections beyond the length of the queue get no answer from the kernel."""
    world = World()
    with queued_connections(reactor, listeners, world.http_factory, world) as found:
        for _ in range(QUEUE_LENGTH):
            found.connect(b"G")
        with pytest.raises(TimeoutError):
            found.connect(wait_s=0.3)
        listeners.receive_queued()
        found.turn()
        assert len(world.context.waiting) == QUEUE_LENGTH
