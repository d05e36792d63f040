"""Listeners that share their sockets with another process, on real sockets of loopback."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.harness import World
from tests.support.listening import LOCALHOST
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure

from pyryrelay.listen.accept import Acceptor
from pyryrelay.listen.inherited import Inherited
from pyryrelay.listen.listeners import Listeners

TCP = f"tcp:0:interface={LOCALHOST}"


@pytest.fixture
def reactor() -> Iterator[Any]:
    """A reactor of its own."""
    reactor = SelectReactor()
    yield reactor
    for left in reactor.removeAll():
        left.connectionLost(Failure(ConnectionDone()))


def copies(listeners: Listeners) -> Inherited:
    """Return what another process would get."""
    shared = listeners.shared()
    return Inherited(
        {text: socket.socket(fileno=os.dup(sock.fileno())) for text, sock in shared.listening.items()},
        {text: socket.socket(fileno=os.dup(sock.fileno())) for text, sock in shared.dropping.items()},
    )


def answers(reactor: Any, address: Any) -> bool:
    """Return whether a request is answered in a few turns, or refused."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as client:
        client.connect(address)
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        client.setblocking(False)
        for _ in range(20):
            reactor.runUntilCurrent()
            reactor.doIteration(0.01)
            try:
                client.recv(100)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                pass
            return True
        return False


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_the_other_process_goes_on(reactor: Any, kind: str, tmp_path: Path) -> None:
    """One process pauses and the other accepts, and the end of the first changes nothing."""
    world = World()
    text = TCP if kind == "tcp" else f"unix:{tmp_path / 's'}"
    old = Listeners(reactor)
    old.open("--listen", text, world.http_factory)
    address = old.sockets[0].getsockname()
    new = Listeners(reactor, None, copies(old))
    new.pause()
    new.open("--listen", text, world.http_factory)
    assert answers(reactor, address)
    old.pause()
    assert not answers(reactor, address)
    new.resume()
    assert answers(reactor, address)
    old.close(leave_to_other=True)
    reactor.runUntilCurrent()
    assert answers(reactor, address)
    new.close()
    reactor.runUntilCurrent()
    assert not (tmp_path / "s").exists()


def test_taking_back(reactor: Any) -> None:
    """A process that has paused can accept again."""
    world, listeners = World(), Listeners(reactor)
    listeners.open("--listen", TCP, world.http_factory)
    address = listeners.sockets[0].getsockname()
    listeners.pause()
    listeners.resume()
    assert answers(reactor, address)
    listeners.close()


def test_endpoints_that_the_other_process_has_not_kept(reactor: Any, tmp_path: Path) -> None:
    """They are closed, with their drop sockets and files, and the others stay."""
    world, listeners = World(), Listeners(reactor)
    listeners.open("--listen", TCP, world.http_factory)
    listeners.open("--listen", f"unix:{tmp_path / 's'}", world.http_factory)
    listeners.open_drop_sockets()
    assert set(listeners.shared().listening) == {TCP, f"unix:{tmp_path / 's'}"}
    assert set(listeners.shared().dropping) <= {TCP}
    listeners.close_others({f"unix:{tmp_path / 's'}"})
    reactor.runUntilCurrent()
    assert set(listeners.shared().listening) == {f"unix:{tmp_path / 's'}"}
    assert listeners.shared().dropping == {}
    listeners.close()
    reactor.runUntilCurrent()


def test_a_drop_socket_is_handed_on(reactor: Any) -> None:
    """The other process adopts it instead of opening another one, and does not detach it from the group."""
    world, old = World(), Listeners(reactor)
    old.open("--listen", TCP, world.http_factory)
    if not old.open_drop_sockets():
        pytest.skip("this kernel has no drop sockets")
    address = old.sockets[0].getsockname()
    new = Listeners(reactor, None, copies(old))
    new.open("--listen", TCP, world.http_factory)
    (adopted,) = new.open_drop_sockets()
    assert adopted.share().getsockname() == address
    old.close(leave_to_other=True)
    assert new.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
    assert answers(reactor, address)
    new.close()


def test_a_port_that_is_no_public_one(reactor: Any) -> None:
    """A port of Twisted's, such as the admin listener's, is handed on like others."""
    old = Listeners(reactor)
    old.open("--admin-listen", TCP, Factory())
    new = Listeners(reactor, None, copies(old))
    new.open("--admin-listen", TCP, Factory())
    assert new.sockets[0].getsockname() == old.sockets[0].getsockname()
    old.close(leave_to_other=True)
    new.close()
    reactor.runUntilCurrent()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_sockets_that_are_lent(reactor: Any, kind: str, tmp_path: Path) -> None:
    """A process that was lent sockets opens no drop sockets, and leaves files and locks to the one that lends them."""
    world = World()
    text = TCP if kind == "tcp" else f"unix:{tmp_path / 's'}"
    lender = Listeners(reactor)
    lender.pause()
    lender.open("--listen", text, Factory())
    address = lender.sockets[0].getsockname()
    lock = os.readlink(f"{address}.lock") if kind == "unix" else ""
    given = copies(lender)
    given.are_lent = True
    borrower = Listeners(reactor, None, given)
    borrower.open("--listen", text, world.http_factory)
    assert borrower.open_drop_sockets() == []
    assert answers(reactor, address)
    borrower.close()
    for _ in range(3):
        reactor.runUntilCurrent()
    assert not answers(reactor, address)
    assert kind == "tcp" or os.readlink(f"{address}.lock") == lock
    lender.close()
    reactor.runUntilCurrent()
    assert not list(tmp_path.iterdir())


def test_a_common_socket(reactor: Any) -> None:
    """Where several processes accept from one socket, each asks first whether a connection is another one's."""
    world, asked = World(), list[str]()

    def is_passed(text: str, sock: Any, peer: Any) -> bool:
        asked.append(text)
        return len(asked) == 1

    lender = Listeners(reactor)
    lender.pause()
    lender.open("--listen", TCP, Factory())
    address = lender.sockets[0].getsockname()
    given = copies(lender)
    (sock,) = given.listening.values()
    text = "systemd:domain=INET:index=0"
    given = Inherited({text: sock}, are_lent=True, common=frozenset({text}))
    borrower = Listeners(reactor, None, given, is_passed)
    borrower.open("--listen", text, world.http_factory)
    assert isinstance(borrower._ports[0], Acceptor)
    assert answers(reactor, address)
    assert world.observer.decisions == []
    assert answers(reactor, address)
    assert asked == [text, text]
    assert len(world.observer.decisions) == 1
    # What another process has passed is not asked about, and is handled, or closed if nothing is known of it.
    with socket.create_connection(address) as client:
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        passed, peer = lender.sockets[0].accept()
        borrower.receive(text, passed, peer)
        assert b" 404 " in client.recv(1000)
    ours, theirs = socket.socketpair()
    with theirs:
        borrower.receive("tcp:1", ours, ("192.0.2.1", 1))
        assert theirs.recv(1) == b""
    assert asked == [text, text]
    borrower.close()
    lender.close()
    reactor.runUntilCurrent()
