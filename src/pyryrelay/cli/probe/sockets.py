"""Connections, opened step by step: name, TCP, TLS. Everything ends by a deadline.

Times are seconds.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

from pyryrelay.cli.probe.advice import no_name, not_connected, not_trusted
from pyryrelay.cli.probe.target import Target

__all__ = ["Address", "Deadline", "TlsState", "addresses_of", "connect_any", "secure", "tls_context"]


Address = tuple[Any, ...]
"""An entry of `socket.getaddrinfo`."""


class Deadline:
    """The moment by which a step must be over."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._now = now
        self._at = now() + seconds

    def apply(self, sock: socket.socket) -> None:
        """Let the next operation of a socket take until the deadline. Raises `TimeoutError` once it has passed."""
        left_s = self._at - self._now()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(left_s)

    @property
    def left_s(self) -> float:
        """The seconds that are left, at least 0."""
        return max(0.0, self._at - self._now())


def addresses_of(host: str, port: int, timeout_s: float) -> list[Address]:
    """Return the addresses of a host. Raises `ProbeError`.

    The system's look-up cannot be interrupted, so it runs in a thread of its own.
    """
    found: list[Address] = []
    causes: list[str] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            causes.append((getattr(error, "strerror", None) or str(error)).lower())

    thread = Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise no_name(host, f"no answer within {timeout_s:g} s")
    if not found:
        raise no_name(host, causes[0] if causes else "it has no address")
    return found


def connect_any(
    addresses: Sequence[Address], deadline: Deadline, failed: Callable[[str], None]
) -> tuple[socket.socket, str]:
    """Connect to the first address that answers, and return the socket and the address in words.

    ``failed`` is told about addresses that did not answer if a later one does. Raises `ProbeError` if none does.
    """
    problems = []
    for number, (family, kind, protocol, _, where) in enumerate(addresses):
        text = f"[{where[0]}]:{where[1]}" if family == socket.AF_INET6 else f"{where[0]}:{where[1]}"
        sock = socket.socket(family, kind, protocol)
        try:
            # Each address has a share of the time, so that one that does not answer leaves some for the others.
            share = Deadline(max(0.01, deadline.left_s / (len(addresses) - number)))
            share.apply(sock)
            sock.connect(where)
        except OSError as error:
            sock.close()
            problems.append(not_connected(text, error, deadline.seconds))
            continue
        for problem in problems:
            failed(problem.problem)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock, text
    raise problems[0]


@dataclass(frozen=True, slots=True)
class TlsState:
    """What a TLS connection is like: version, names and end of the certificate, in words."""

    version: str
    names: str
    ends: datetime.datetime

    def days_left(self, now: datetime.datetime) -> float:
        """Return how many days the certificate is still valid."""
        return (self.ends - now).total_seconds() / 86_400

    def describe(self, now: datetime.datetime) -> str:
        """Return one line."""
        days = self.days_left(now)
        left = f"{days:.0f} days left" if days >= 0 else "EXPIRED"
        return f"{self.version}, certificate of {self.names}, ends {self.ends:%Y-%m-%d} ({left})"


def tls_context(ca_file: str | None, *, verify: bool) -> ssl.SSLContext:
    """Return a context with the authorities of the system, or those in a file. Raises `OSError`."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def secure(
    sock: socket.socket, target: Target, ca_file: str | None, deadline: Deadline, *, verify: bool
) -> tuple[ssl.SSLSocket, TlsState]:
    """Speak TLS on a socket, and return the secured one. Raises `ProbeError`; the socket is then closed."""
    where = sock.getpeername()
    try:
        deadline.apply(sock)
        secured = tls_context(ca_file, verify=verify).wrap_socket(sock, server_hostname=target.host)
    except (ssl.SSLError, OSError) as error:
        sock.close()
        state = _look_again(where, target, deadline) if isinstance(error, ssl.SSLCertVerificationError) else ""
        raise not_trusted(error, target.port, state) from None
    return secured, _state(secured)


def _look_again(where: Any, target: Target, deadline: Deadline) -> str:
    """Return what a certificate is like that was refused, from another connection that trusts everything."""
    with contextlib.suppress(OSError, ValueError):
        sock = socket.socket(socket.AF_INET6 if len(where) == 4 else socket.AF_INET)
        with contextlib.closing(sock):
            deadline.apply(sock)
            sock.connect(where)
            with tls_context(None, verify=False).wrap_socket(sock, server_hostname=target.host) as secured:
                state = _state(secured)
                return f"it is of {state.names}, and ends {state.ends:%Y-%m-%d}"
    return ""


def _state(secured: ssl.SSLSocket) -> TlsState:
    from cryptography import x509

    read = x509.load_der_x509_certificate(secured.getpeercert(True) or b"")
    names = ", ".join(_names(read)) or "no name"
    return TlsState(secured.version() or "TLS", names, read.not_valid_after_utc)


def _names(certificate: Any) -> Iterator[str]:
    from cryptography import x509

    with contextlib.suppress(x509.ExtensionNotFound, ValueError):
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        yield from found.get_values_for_type(x509.DNSName)[:4]
        yield from map(str, found.get_values_for_type(x509.IPAddress)[:4])
