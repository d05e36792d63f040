"""Connect to a server: directly, by a UNIX socket, with TLS, or where sentinels say that the primary is.

Sentinels are asked before each connection: after a failover the primary is another server. Times are seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Factory

from pyryrelay.cluster.redis.connection import Connection
from pyryrelay.cluster.redis.hello import hello_words
from pyryrelay.cluster.redis.interface import AnswerError, DownError
from pyryrelay.cluster.redis.sentinels import Sentinels
from pyryrelay.cluster.redis.tls_words import NO_TLS
from pyryrelay.config.options.redis_url import RedisHost, RedisUrl

__all__ = ["CONNECT_TIMEOUT_S", "Connector", "Place", "login_of", "read_password"]

CONNECT_TIMEOUT_S: Final = 1.0
"""How long a connection may take until it stands, with TLS."""

NewConnection = Callable[[], Connection]


@dataclass(frozen=True, slots=True)
class Place:
    """A host or the path of a socket, what it is connected with, how it is called, and its name if it has TLS."""

    endpoint: Any
    name: str
    tls_name: str = ""


def read_password(url: RedisUrl, name: str, base: Path) -> str:
    """Return the password in the file that a URL names; "" if it names none. Raises `OSError` and `UnicodeError`."""
    path = url.files.get(name)
    return "" if path is None else (base / path).read_text(encoding="utf-8").strip("\r\n")


def login_of(url: RedisUrl, name: str, base: Path) -> tuple[str, ...]:
    """Return the first command on a connection to the server of a URL. Raises as `read_password` does."""
    return hello_words(name, url.user, read_password(url, "password-file", base))


class Connector:
    """Makes connections to the server of a URL; relative names of files count from ``base``.

    ``new_connection`` makes those that ask `sentinels`, which are None without any.
    """

    def __init__(
        self, reactor: Any, url: RedisUrl, base: Path, new_connection: NewConnection, now: Callable[[], float]
    ) -> None:
        self._reactor = reactor
        self._url = url
        self._base = base
        self._new_connection = new_connection
        self.sentinels = Sentinels(url.hosts, url.service, self._ask_sentinel, now) if url.service else None
        self._tls: tuple[object, Any] | None = None

    @inlineCallbacks
    def connect(self, connection: Connection) -> Generator[Deferred[Any], Any, str]:
        """Connect ``connection``; the result names the server. Fails with `DownError`."""
        if self._url.path:
            place = Place(UNIXClientEndpoint(self._reactor, self._url.path, CONNECT_TIMEOUT_S), self._url.path)
        elif self.sentinels is not None:
            place = self._tcp((yield self.sentinels.primary()))
        else:
            place = self._tcp(self._url.hosts[0])
        yield self._connect(place, connection)
        return place.name

    def _tcp(self, host: RedisHost) -> Place:
        endpoint = HostnameEndpoint(self._reactor, host.host, host.port, timeout=CONNECT_TIMEOUT_S)
        return Place(endpoint, str(host), host.host if self._url.is_tls else "")

    def _context(self) -> Any:
        """Return the context of TLS, made anew if its files have changed. Raises `OSError` and `DownError`."""
        # Other relays need no OpenSSL.
        from pyryrelay.runtime.outgoing.tls import TlsFileError, client_context

        paths = self._url.tls_paths(self._base)
        state = [None if path is None else (path.stat().st_mtime_ns, path.stat().st_ino) for path in paths]
        if self._tls is None or self._tls[0] != state:
            try:
                self._tls = state, client_context(*paths)
            except TlsFileError as error:
                raise DownError(str(error)) from None
        return self._tls[1]

    def _secured(self, place: Place, connection: Connection) -> Any:
        """Return the endpoint of a place, with TLS if it has that."""
        if not place.tls_name:
            connection.tls_problem = "" if self._url.path else None
            return place.endpoint
        from pyryrelay.runtime.outgoing.tls import ClientTls

        context = self._context()
        connection.tls_problem = NO_TLS

        def checked(problem: str) -> None:
            connection.tls_problem = problem

        return wrapClientTLS(ClientTls(context, place.tls_name, checked), place.endpoint)

    @inlineCallbacks
    def _connect(self, place: Place, connection: Connection) -> Generator[Deferred[Any], Any, None]:
        endpoint = self._secured(place, connection)
        try:
            connecting = endpoint.connect(_OneConnection(connection))
            connecting.addTimeout(CONNECT_TIMEOUT_S, self._reactor)
            yield connecting
        except Exception as error:
            # Lines about a server begin with the name of its URL.
            where = "" if place.name == self._url.name else f"{place.name}: "
            raise DownError(where + _reason(error)) from None

    @inlineCallbacks
    def _ask_sentinel(self, host: RedisHost) -> Generator[Deferred[Any], Any, RedisHost]:
        connection = self._new_connection()
        try:
            yield self._connect(self._tcp(host), connection)
            found: RedisHost = yield self._ask(connection)
        finally:
            connection.abort("asked")
        return found

    @inlineCallbacks
    def _ask(self, connection: Connection) -> Generator[Deferred[Any], Any, RedisHost]:
        password = read_password(self._url, "sentinel-password-file", self._base)
        if password:
            yield connection.send(("AUTH", password))
        answer = yield connection.send(("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.service))
        if not answer:
            raise AnswerError(f"no such name: {self._url.service}")
        return RedisHost(answer[0].decode("utf-8", "replace"), int(answer[1]))


class _OneConnection(Factory):
    """Uses a connection that is there already."""

    noisy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: object) -> Connection:
        """Return the connection."""
        return self._connection


def _reason(error: Exception) -> str:
    """Return the reason of a failure to connect, in a few words."""
    if isinstance(error, ConnectingCancelledError):
        return f"no connection in {CONNECT_TIMEOUT_S:g} s"
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    if isinstance(number, int):
        return os.strerror(number)
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
