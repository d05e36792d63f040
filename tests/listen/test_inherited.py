"""Sockets that another process has handed over: ports take them over, and leave them alone at the end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import listening as support
from twisted.internet.protocol import Factory

from pyryrelay.listen.inherited import AdoptingReactor, Inherited, release, stand_in


@pytest.fixture
def own_reactor() -> Iterator[Any]:
    """A reactor of its own."""
    with support.own_reactor() as reactor:
        yield reactor


def listening(path: Path) -> socket.socket:
    """Return a UNIX socket that listens, with a mode of its own."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    path.chmod(0o600)
    sock.listen(7)
    return sock


def test_sockets_are_taken_once() -> None:
    """A socket is taken by its endpoint, once, and what is left is closed."""
    one, other, drop = (socket.socket() for _ in range(3))
    inherited = Inherited({"a": one, "b": other}, {"a": drop})
    assert inherited.take("a") is one
    assert inherited.take("a") is None
    assert inherited.endpoints == {"b"}
    inherited.close()
    assert (other.fileno(), drop.fileno()) == (-1, -1)
    assert inherited.endpoints == frozenset()
    one.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("systemd:domain=INET:index=0", "tcp:0"),
        ("haproxy:systemd:domain=INET:name=x", "haproxy:tcp:0"),
        ("tcp:80", "tcp:80"),
        ("unix:/run/systemd:x", "unix:/run/systemd:x"),
    ],
)
def test_stand_in(text: str, expected: str) -> None:
    """Only endpoints of systemd need another text, because Twisted looks for their descriptors itself."""
    assert stand_in(text) == expected


def test_a_tcp_port(own_reactor: Any) -> None:
    """A TCP port listens on the socket, whatever address is asked for, and closes only its own descriptor."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        copy = sock.dup()
        port: Any = AdoptingReactor(own_reactor, copy).listenTCP(0, Factory())
        assert copy.fileno() == -1
        assert port.getHost().port == sock.getsockname()[1]
        release(port)
        port.stopListening()
        port.connectionLost(None)
        with socket.create_connection(sock.getsockname()):
            sock.accept()[0].close()


def test_a_unix_port(own_reactor: Any, tmp_path: Path) -> None:
    """The mode of the file stays, the lock names this process, and both are removed when the port stops."""
    path = tmp_path / "s"
    os.symlink("1", f"{path}.lock")
    sock = listening(path)
    port: Any = AdoptingReactor(own_reactor, sock).listenUNIX(str(path), Factory(), 50, 0o666, 1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.readlink(f"{path}.lock") == str(os.getpid())
    port.connectionLost(None)
    assert list(tmp_path.iterdir()) == []


def test_a_unix_port_that_was_released(own_reactor: Any, tmp_path: Path) -> None:
    """The file and the lock stay for the other process."""
    path = tmp_path / "s"
    sock = listening(path)
    other = sock.dup()
    port: Any = AdoptingReactor(own_reactor, sock).listenUNIX(str(path), Factory(), 50, 0o666, 1)
    release(port)
    port.connectionLost(None)
    assert path.exists()
    assert Path(f"{path}.lock").is_symlink()
    with other, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
