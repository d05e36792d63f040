"""The servers of ``--cluster``, asked before the start: can they be used, and will they keep what they are told?

They are asked by ``--check`` alone: a relay starts without them. Times are seconds.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pyryrelay.cluster.redis.hello import problem_of_error, server_of
from pyryrelay.cluster.redis.tls_words import CLOSED_AT_ONCE, NO_TLS, words_of_tls
from pyryrelay.config.options.redis_url import RedisHost, RedisUrl
from pyryrelay.config.settings import SharedSettings
from pyryrelay.preflight.checks import (
    CLUSTER_CLOCK,
    CLUSTER_EVICTION,
    CLUSTER_LIBRARY,
    CLUSTER_PERMISSIONS,
    CLUSTER_SERVER,
    READABLE_SECRET,
)
from pyryrelay.protocol_options import Finding

__all__ = ["cluster_files", "cluster_library", "cluster_servers"]

_TIMEOUT_S: Final = 2.0
_MAX_SKEW_S: Final = 2.0
_CLOSED: Final = "it closed the connection"
Words = tuple[str | int, ...]


_KEY: Final = "KEY"
_NEEDED: Final[Mapping[str, Words]] = {
    "set": (_KEY, "1", "PX", 1000),
    "pexpire": (_KEY, 1000),
    "eval": ("return 1", 0),
    "evalsha": ("0" * 40, 0),
    "time": (),
    "get": (_KEY,),
    "exists": (_KEY,),
    "hset": (_KEY, "f", "v"),
    "hget": (_KEY, "f"),
    "hgetall": (_KEY,),
    "hexists": (_KEY, "f"),
    "hdel": (_KEY, "f"),
    "zadd": (_KEY, 1, "m"),
    "zcard": (_KEY,),
    "zrange": (_KEY, 0, 0),
    "zrevrange": (_KEY, 0, 0),
    "zrangebyscore": (_KEY, 0, 0),
    "zremrangebyscore": (_KEY, 0, 0),
    "zrem": (_KEY, "m"),
    "xadd": (_KEY, "*", "f", "v"),
    "xrange": (_KEY, "-", "+"),
    "xrevrange": (_KEY, "+", "-"),
    "xread": ("COUNT", 1, "STREAMS", _KEY, "0"),
    "xdel": (_KEY, "0-1"),
    "del": (_KEY,),
}
"""Commands that the relay and its scripts use, each as it does no harm. The first one makes a text of the key."""


class _ProblemError(Exception):
    """The server cannot be used, as the text says."""


def cluster_library(settings: SharedSettings) -> Iterator[Finding]:
    """Find that the package of the client is missing."""
    if settings.cluster and find_spec("hiredis") is None:
        why = "it needs the package hiredis, which is not installed"
        yield Finding(CLUSTER_LIBRARY, _what(settings.cluster[0]), why, "pip install 'pyryrelay[cluster]'")


def cluster_files(settings: SharedSettings, base: Path) -> Iterator[Finding]:
    """Find password files that other users can read."""
    for url in map(RedisUrl.parse, settings.cluster):
        for name in ("password-file", "key", "sentinel-password-file"):
            path = url.files.get(name)
            with contextlib.suppress(OSError):
                if path is not None and (base / path).stat().st_mode & 0o077:
                    why = f"other users have access to {path!r}"
                    yield Finding(READABLE_SECRET, _what(url.text), why, f"run: chmod 600 {base / path}")


def cluster_servers(settings: SharedSettings, base: Path, wall: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Ask each server, and find what is wrong with it."""
    if not settings.cluster or find_spec("hiredis") is None:
        return
    for url in map(RedisUrl.parse, settings.cluster):
        try:
            with _Connection.to_server(url, base) as connection:
                yield from _of_server(url, connection, settings.cluster_name, wall)
        except (_ProblemError, OSError, UnicodeError) as error:
            why = f"it cannot be used now: {_reason(error)}"
            yield Finding(CLUSTER_SERVER, _what(url.text), why, "a relay starts without it; put it right meanwhile")


def _reason(error: Exception) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    # Files with passwords and certificates have names, and connections have none.
    return f"{str(error.filename)!r}: {error.strerror}" if error.filename else error.strerror


def _what(text: str) -> str:
    return f"--cluster {text!r}"


def _of_server(url: RedisUrl, connection: _Connection, name: str, wall: Callable[[], float]) -> Iterator[Finding]:
    what = _what(url.text)
    seconds, micros = connection.ask("TIME")
    skew_s = int(seconds) + int(micros) / 1e6 - wall()
    if abs(skew_s) > _MAX_SKEW_S:
        side = "ahead of" if skew_s > 0 else "behind"
        why = f"its clock is {abs(skew_s):.1f} s {side} this machine's"
        yield Finding(CLUSTER_CLOCK, what, why, "keep both right with NTP")
    missing = _missing(connection, f"pyry:{name}:{{0}}check")
    if missing:
        allowed = " ".join(f"+{one}" for one in missing)
        fix = f"allow them, and the keys: ACL SETUSER {url.user or 'default'} ~pyry:* {allowed}"
        yield Finding(CLUSTER_PERMISSIONS, what, f"its user may not use {', '.join(missing)}", fix)
    policy = _eviction(connection)
    if policy not in ("", "noeviction") and not policy.startswith("volatile-"):
        why = f"with maxmemory-policy {policy} it may forget what it was told"
        yield Finding(CLUSTER_EVICTION, what, why, "set maxmemory-policy noeviction")


def _missing(connection: _Connection, key: str) -> list[str]:
    """Return the commands that the user may not use.

    The server is asked to do each of them to a text that ends by itself, which most of them refuse for its type.
    """
    missing = []
    for name, arguments in _NEEDED.items():
        words: Words = (name.upper(), *(key if word == _KEY else word for word in arguments))
        try:
            connection.ask(*words)
        except _ProblemError as error:
            if str(error).startswith("NOPERM"):
                missing.append(name)
    return missing


def _eviction(connection: _Connection) -> str:
    """Return what the server does when its memory is full; "" if it does not say."""
    try:
        text = connection.ask("INFO", "memory")
    except _ProblemError:
        return ""
    lines = text.decode("utf-8", "replace").splitlines() if isinstance(text, bytes) else []
    return next((line.partition(":")[2] for line in lines if line.startswith("maxmemory_policy:")), "")


class _Connection:
    """A connection that waits, for the time before there is a reactor."""

    def __init__(self, sock: socket.socket) -> None:
        import hiredis

        self._sock = sock
        self._reader = hiredis.Reader(replyError=_ProblemError, protocolError=_ProblemError)
        self._pack = hiredis.pack_command

    @classmethod
    @contextlib.contextmanager
    def to_server(cls, url: RedisUrl, base: Path) -> Iterator[_Connection]:
        """Connect and log in. Raises `_ProblemError` and `OSError`."""
        with contextlib.ExitStack() as stack:
            host = _primary(url, base) if url.service else None
            connection = cls(stack.enter_context(_open(url, host or (url.hosts or (None,))[0], base)))
            connection.login(url, _password(url, "password-file", base))
            yield connection

    def login(self, url: RedisUrl, password: str) -> None:
        """Say hello, and see whether the server can be used."""
        login = ("AUTH", url.user or "default", password) if url.user or password else ()
        try:
            server = server_of(self.ask("HELLO", "2", *login))
            if server.problem:
                raise _ProblemError(server.problem)
            if url.database:
                self.ask("SELECT", url.database)
            self.ask("TIME")
        except _ProblemError as error:
            text = str(error)
            raise _ProblemError(problem_of_error(text.partition(" ")[0], text) or text) from None
        except ConnectionResetError:
            is_plain = self._sock.family != socket.AF_UNIX and not isinstance(self._sock, ssl.SSLSocket)
            raise _ProblemError(CLOSED_AT_ONCE if is_plain else _CLOSED) from None

    def ask(self, *words: str | int) -> Any:
        """Return the answer to a command. Raises `_ProblemError` if it is an error, and `OSError`."""
        # A server that has closed already may have said why: that is read then.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self._sock.sendall(self._pack(words))  # type: ignore[arg-type]  # any number of words
        while (answer := self._reader.gets()) is False:
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionResetError(_CLOSED)
            self._reader.feed(data)
        if isinstance(answer, _ProblemError):
            raise answer
        return answer


def _password(url: RedisUrl, name: str, base: Path) -> str:
    path = url.files.get(name)
    return "" if path is None else (base / path).read_text(encoding="utf-8").strip("\r\n")


@contextlib.contextmanager
def _open(url: RedisUrl, host: RedisHost | None, base: Path) -> Iterator[socket.socket]:
    if host is None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.connect(url.path)
            yield sock
        return
    with socket.create_connection(host, _TIMEOUT_S) as sock:
        if not url.is_tls:
            yield sock
            return
        with _secured(sock, host.host, url.tls_paths(base)) as secured:
            yield secured


@contextlib.contextmanager
def _secured(
    sock: socket.socket, host: str, paths: tuple[Path | None, Path | None, Path | None]
) -> Iterator[ssl.SSLSocket]:
    """Begin TLS, as strict as the relay is. Raises `_ProblemError` and `OSError`."""
    # Other relays need no OpenSSL.
    from pyryrelay.runtime.outgoing.tls import CERTIFICATE_PROBLEMS, OTHER_NAME, TlsFileError, client_context

    try:
        client_context(*paths)
    except TlsFileError as error:
        raise _ProblemError(str(error)) from None
    ca, certificate, key = paths
    context = ssl.create_default_context(cafile=ca)
    # Since Python 3.13, certificates are refused by default that OpenSSL, and so the relay, accepts.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.hostname_checks_common_name = False
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    try:
        with context.wrap_socket(sock, server_hostname=host) as secured:
            yield secured
    except TimeoutError:
        raise _ProblemError(NO_TLS) from None
    except ssl.SSLCertVerificationError as error:
        raise _ProblemError(CERTIFICATE_PROBLEMS.get(error.verify_code, error.verify_message) or OTHER_NAME) from None
    except ssl.SSLError as error:
        raise _ProblemError(words_of_tls(error.reason or error.strerror or "")) from None


def _primary(url: RedisUrl, base: Path) -> RedisHost:
    """Return where the sentinels say that the primary is."""
    reason = ""
    for host in url.hosts:
        try:
            with _open(url, host, base) as sock:
                connection = _Connection(sock)
                password = _password(url, "sentinel-password-file", base)
                if password:
                    connection.ask("AUTH", password)
                found = connection.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service)
        except (_ProblemError, OSError) as error:
            reason = f" ({error})"
            continue
        if found:
            return RedisHost(found[0].decode(), int(found[1]))
    raise _ProblemError(f"no sentinel knows {url.service!r}{reason}")
