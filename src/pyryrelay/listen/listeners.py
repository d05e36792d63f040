"""The sockets that the relay listens on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Generator
from functools import partial
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.tcp import Port
from twisted.logger import Logger

from pyryrelay.config.endpoints import Endpoint, without_tls
from pyryrelay.config.endpoints import unix_mode as mode_of
from pyryrelay.http.connection import HttpFactory
from pyryrelay.listen.accept import Acceptor, AcceptReactor
from pyryrelay.listen.exhaustion import Pausing
from pyryrelay.listen.inherited import AdoptingReactor, Inherited, release, stand_in
from pyryrelay.listen.kernel.drop import is_tcp
from pyryrelay.listen.kernel.reuseport import DropSocket
from pyryrelay.listen.probe import advice
from pyryrelay.listen.sockets import Address, Socket
from pyryrelay.runtime.stale_files import remove_stale_socket

if TYPE_CHECKING:
    from pyryrelay.listen.tls.certificates import CertificateStore

__all__ = ["EndpointCertificates", "ListenError", "Listeners"]


_log = Logger(namespace="pyryrelay")

BACKLOG = 1024
"""How many connections may wait to be accepted; the kernel lowers it to net.core.somaxconn."""


class ListenError(Exception):
    """An endpoint cannot be listened on. The text is one line with the option, the value and the fix."""


class EndpointCertificates(Protocol):
    """Where ``ssl:`` endpoints have their certificates from: a `CertificateFiles`."""

    def of_endpoint(self, text: str) -> CertificateStore:
        """Return the certificates of an endpoint."""


class Listeners:
    """Ports that are opened one by one, and closed together.

    ``certificates`` has those of ``ssl:`` endpoints; without it they are read from the files that the endpoints name.
    Ports are opened on ``inherited`` sockets where there are any, and on new ones otherwise. ``is_passed`` is asked
    about connections to a socket that several processes accept from; it returns whether another process gets one.
    """

    def __init__(
        self,
        reactor: Any,
        certificates: EndpointCertificates | None = None,
        inherited: Inherited | None = None,
        is_passed: Callable[[str, Socket, Address], bool] | None = None,
    ) -> None:
        self._reactor = reactor
        self._certificates = certificates
        self._inherited = Inherited() if inherited is None else inherited
        self._is_passed = is_passed
        self._texts: dict[Any, str] = {}
        self._is_paused = False
        self._ports: list[IListeningPort] = []
        self._handed_down: set[IListeningPort] = set()
        self._drop_sockets: list[tuple[Any, DropSocket]] = []
        self.without_drop_socket: dict[socket, str] = {}
        """The TCP sockets that can have no drop socket, and why."""

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._ports)

    @property
    def sockets(self) -> list[socket]:
        """The listening sockets of the ports that show theirs."""
        return [sock for _, sock in self._with_sockets()]

    def _with_sockets(self) -> list[tuple[Any, socket]]:
        return [(port, sock) for port in self._ports if (sock := getattr(port, "socket", None)) is not None]

    def open_drop_sockets(self) -> list[DropSocket]:
        """Add drop sockets to the TCP sockets that were opened here; it needs the same privileges as `open`.

        Sockets that are lent have theirs in the process that lends them.
        """
        if self._inherited.are_lent:
            return []
        for port, sock in self._with_sockets():
            if not is_tcp(sock):
                continue
            if (shared := self._inherited.take_drop_socket(self._texts[port])) is not None:
                self._drop_sockets.append((port, DropSocket(sock, shared)))
                continue
            if port in self._handed_down:
                self.without_drop_socket[sock] = "the socket was handed down"
                continue
            try:
                self._drop_sockets.append((port, DropSocket(sock)))
            except OSError as error:
                self.without_drop_socket[sock] = error.strerror or str(error)
        return [drop_socket for _, drop_socket in self._drop_sockets]

    def receive_queued(self) -> None:
        """Treat connections to a drop socket as if they had come to the socket that it belongs to."""
        for port, drop_socket in () if self._is_paused else self._drop_sockets:
            with contextlib.suppress(OSError):
                for sock, address in drop_socket.queued():
                    self._receive(port, sock, address)

    def receive(self, text: str, sock: Socket, address: Address) -> None:
        """Treat a connection as if it had come to the socket of that endpoint. Without such a socket it is closed."""
        port = next((port for port in self._ports if self._texts[port] == text), None)
        if port is None:
            sock.close()
        else:
            self._receive(port, sock, address)

    def _receive(self, port: Any, sock: Socket, address: Address) -> None:
        if isinstance(port, Acceptor):
            port.receive(sock, address)
            return
        try:
            sock.setblocking(False)
            # Twisted makes a copy. If the peer has gone, it leaves closing the copy to the garbage collector.
            sock.getpeername()
            self._reactor.adoptStreamConnection(sock.fileno(), sock.family, port.factory)
        except OSError:
            pass  # the peer has gone, or there is no descriptor left
        finally:
            sock.close()

    def open(self, option: str, text: str, factory: Any, *, unix_mode: int | None = None) -> None:
        """Listen on the endpoint ``text``, which ``option`` named. Raises `ListenError`.

        A ``unix:`` socket gets the permission bits ``unix_mode`` if the endpoint has none. None leaves them to Twisted,
        which lets every user connect.
        """
        outcome: list[Any] = []
        inherited = self._inherited.take(text)
        if (endpoint := Endpoint.parse(text)).scheme == "unix" and inherited is None:
            with contextlib.suppress(OSError, ValueError):  # listening fails then, and says why
                if remove_stale_socket(Path(endpoint.argument)):
                    _log.info("removed the socket {endpoint}, on which nobody listened any more", endpoint=text)
        maybeDeferred(self._listen, text, factory, unix_mode, inherited).addBoth(outcome.append)
        port = outcome[0] if outcome else None
        if IListeningPort.providedBy(port):
            self._ports.append(port)
            self._texts[port] = text
            if self._is_paused:
                _pause(port)
            if isinstance(port, Port):
                Pausing(port, self._reactor)
            if isinstance(port, Acceptor) and self._is_passed is not None and text in self._inherited.common:
                port.pass_on(partial(self._is_passed, text))
            if Endpoint.parse(text).scheme == "systemd":
                self._handed_down.add(port)
            return
        error = getattr(port, "value", port)
        cause = error.socketError if isinstance(error, CannotListenError) else error
        problem = advice(text, cause)
        raise ListenError(f"{option} {text!r}: cannot listen: {problem.cause}; {problem.fix}")

    def _listen(
        self, text: str, factory: Any, unix_mode: int | None, inherited: socket | None
    ) -> Deferred[IListeningPort]:
        reactor = self._reactor_for(text, factory, inherited)
        completed = _completed(text if inherited is None else stand_in(text), unix_mode)
        if Endpoint.parse(text).scheme == "ssl":
            completed = without_tls(completed)
        opened: Deferred[IListeningPort] = serverFromString(reactor, completed).listen(factory)
        return opened

    def _reactor_for(self, text: str, factory: Any, inherited: socket | None) -> Any:
        """Return what an endpoint of that text gets as its reactor when it opens its port."""
        is_public = isinstance(factory, HttpFactory)
        if Endpoint.parse(text).scheme == "ssl":
            # Most relays leave TLS to a proxy, and need not have OpenSSL.
            from pyryrelay.listen.tls.accept import TlsAcceptReactor
            from pyryrelay.listen.tls.file_watch import CertificateFiles

            if self._certificates is None:
                self._certificates = CertificateFiles((), (), Path.cwd())
            return TlsAcceptReactor(self._reactor, self._certificates.of_endpoint(text), inherited)
        # The sockets of other endpoints do not accept plain TCP, or were opened by another process.
        is_plain = text.startswith(("tcp:", "tcp6:")) or (text in self._inherited.common and _is_handed_down(text))
        if is_public and is_plain and AcceptReactor.fit(self._reactor) and (inherited is None or is_tcp(inherited)):
            return AcceptReactor(self._reactor, inherited)
        if inherited is None:
            return self._reactor
        return AdoptingReactor(self._reactor, inherited, is_lent=self._inherited.are_lent)

    # Sharing the sockets with another process

    def pause(self) -> None:
        """Accept nothing until `resume`: connections wait in the kernel, or another process accepts them."""
        self._is_paused = True
        for port in self._ports:
            _pause(port)

    def resume(self) -> None:
        """Accept again."""
        self._is_paused = False
        for port in self._ports:
            if isinstance(port, Acceptor):
                port.resume()
            else:
                cast(Any, port).startReading()

    def shared(self) -> Inherited:
        """Return the sockets for a process that is to take them over. They stay those of this object."""
        sockets = {self._texts[port]: sock for port, sock in self._with_sockets()}
        return Inherited(sockets, {self._texts[port]: drop.share() for port, drop in self._drop_sockets})

    @inlineCallbacks
    def close_others(self, kept: Container[str]) -> Generator[Deferred[Any], Any, None]:
        """Stop listening on the endpoints that another process has not kept."""
        for port in [port for port in self._ports if self._texts[port] not in kept]:
            self._ports.remove(port)
            for pair in [pair for pair in self._drop_sockets if pair[0] is port]:
                self._drop_sockets.remove(pair)
                pair[1].close()
            yield maybeDeferred(port.stopListening)

    @inlineCallbacks
    def close(self, *, leave_to_other: bool = False) -> Generator[Deferred[Any], Any, None]:
        """Stop listening. With ``leave_to_other``, the sockets and their files are those of another process now."""
        for _, drop_socket in self._drop_sockets:
            if leave_to_other:
                drop_socket.abandon()
            else:
                drop_socket.close()
        for port in self._ports:
            if (leave_to_other or self._inherited.are_lent) and not isinstance(port, Acceptor):
                release(port)
            yield maybeDeferred(port.stopListening)


def _pause(port: Any) -> None:
    if isinstance(port, Acceptor):
        port.pause()
    else:
        port.stopReading()


def _is_handed_down(text: str) -> bool:
    return text.startswith("systemd:")


def _completed(text: str, unix_mode: int | None) -> str:
    """Return the endpoint with its defaults: an accept queue that a flood does not fill at once, and a mode."""
    scheme = Endpoint.parse(text).scheme
    if scheme == "unix" and unix_mode is not None and mode_of(text) is None:
        text = f"{text}:mode={unix_mode:o}"
    if scheme not in ("tcp", "tcp6", "ssl", "unix") or "backlog=" in text:
        return text
    return f"{text}:backlog={BACKLOG}"
