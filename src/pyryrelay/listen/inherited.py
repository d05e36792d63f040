"""Listening sockets that the process before this one has handed over, and how Twisted's ports take them over.

Both processes have the same sockets, so what one of them does to a socket, rather than to its own descriptor, reaches
the other. Invariants: nothing here shuts a socket down, lowers its queue, or changes the mode of its file; a port that
`release` was called on leaves the file of a ``unix:`` socket and its lock to the other process.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import IListeningPort

from pyryrelay.config.endpoints import Endpoint
from pyryrelay.runtime.twisted_internals import adopt_unix_port, share_port

__all__ = ["AdoptingReactor", "Inherited", "release", "stand_in"]


class Inherited:
    """Sockets by the endpoint that they were opened for, and the drop sockets beside them."""

    def __init__(
        self,
        sockets: Mapping[str, socket.socket] | None = None,
        drop_sockets: Mapping[str, socket.socket] | None = None,
        *,
        are_lent: bool = False,
        common: frozenset[str] = frozenset(),
    ) -> None:
        """Take the sockets over, to be taken one by one or closed.

        Those that ``are_lent`` stay the other process's: it keeps them open, has drop sockets beside them, and removes
        their files at the end. It lends the sockets of the ``common`` endpoints to several processes.
        """
        self.listening = dict(sockets or {})
        self.dropping = dict(drop_sockets or {})
        self.are_lent = are_lent
        self.common = common

    @property
    def endpoints(self) -> frozenset[str]:
        """The endpoints whose sockets were not taken yet."""
        return frozenset(self.listening)

    def take(self, text: str) -> socket.socket | None:
        """Return the socket of an endpoint with exactly that text, once."""
        return self.listening.pop(text, None)

    def take_drop_socket(self, text: str) -> socket.socket | None:
        """Return the drop socket beside the socket of that endpoint, once."""
        return self.dropping.pop(text, None)

    def close(self) -> None:
        """Close what was not taken."""
        for sock in (*self.listening.values(), *self.dropping.values()):
            sock.close()
        self.listening.clear()
        self.dropping.clear()


class AdoptingReactor:
    """Takes the place of an endpoint's reactor: its port listens on a socket that is there already."""

    def __init__(self, reactor: Any, sock: socket.socket, *, is_lent: bool = False) -> None:
        self._reactor = reactor
        self._socket = sock
        self._is_lent = is_lent

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:  # noqa: N802
        """Return the port, whatever address is asked for."""
        return self._adopt(factory, backlog, 0)

    def listenUNIX(  # noqa: N802
        self,
        address: str,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,  # noqa: N803
    ) -> IListeningPort:
        """Return the port, which removes the file of the socket when it stops, and its lock."""
        return self._adopt(factory, backlog, wantPID)

    def _adopt(self, factory: Any, backlog: int, has_lock: int) -> IListeningPort:
        with self._socket as sock:
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                port: IListeningPort = self._reactor.adoptStreamPort(sock.fileno(), sock.family, factory)
                return port
            adopted = adopt_unix_port(self._reactor, sock.fileno(), factory, backlog)
            if self._is_lent:
                release(adopted)
            elif has_lock:
                take_lock(os.fsdecode(sock.getsockname()))
            return adopted


def stand_in(text: str) -> str:
    """Return an endpoint that Twisted can parse for one of ``systemd:``, whose descriptor an `AdoptingReactor` has."""
    at = text.find("systemd:")
    return text if Endpoint.parse(text).scheme != "systemd" else f"{text[:at]}tcp:0"


def take_lock(path: str) -> None:
    """Make this process the owner of the lock beside a socket, as Twisted writes it: a link to the process number."""
    lock, own = f"{path}.lock", f"{path}.lock.{os.getpid()}"
    with contextlib.suppress(OSError):
        os.symlink(str(os.getpid()), own)
        os.replace(own, lock)


def release(port: Any) -> None:
    """Make a port of Twisted's leave its socket to the process that shares it, when it stops."""
    share_port(port)
