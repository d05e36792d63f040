"""What the settings are checked for before a start, besides what the preflight finds: lists, endpoints, certificates.

Nothing is changed, and no port is bound. Each check raises a `SettingsError` that names the option, the value and the
fix, and quotes no content of key files.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyryrelay.config.derive import trust_policy
from pyryrelay.config.endpoints import Endpoint, has_tls_files, is_haproxy, of_worker, without_tls
from pyryrelay.config.list_files import Entries, ListFileError, ListFiles, list_options
from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import COMMAND_LINE, SettingsError
from pyryrelay.guard import client_address
from pyryrelay.text import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

__all__ = ["check_certificates", "check_endpoints", "check_lists", "explain_clients"]


def check_lists(settings: SharedSettings, base: Path) -> None:
    """Read the list files once, so that an invalid one prevents the start. Raises `SettingsError`."""
    for about, twin in list_options(settings):
        paths = [str(base / path) for path in getattr(settings, twin.field)]
        try:
            ListFiles(getattr(settings, about.field), paths, Entries.of(about)).load()
        except ListFileError as error:
            problem, _, fix = str(error).rpartition(": ")
            raise settings.error(twin.name, problem, fix) from None


def explain_clients(settings: SharedSettings, cases: Sequence[str]) -> list[str]:
    """Explain which client each peer with its header value stands for, a line per step. Raises `SettingsError`."""
    trust, lines = trust_policy(settings), []
    for case in cases:
        peer, _, value = case.strip().partition(" ")
        if peer != "unix" and client_address(peer) is None:
            problem = f"{quoted(peer)} is not the address of a peer"
            raise SettingsError("whoami", COMMAND_LINE, problem, "write '192.0.2.7 VALUE', or 'unix VALUE'")
        lines.append(f"{trust.header} {quoted(value)} from {peer}:" if value else f"no {trust.header} from {peer}:")
        steps = trust.explain(None if peer == "unix" else peer, [value] if value else [])
        lines += [printable(f"  {step}") for step in steps]
    return lines


def check_endpoints(
    settings: SharedSettings, reactor: object = None, known: Container[str] = (), base: Path | None = None
) -> None:
    """Have Twisted parse all endpoint strings, including keys and inherited sockets, without binding a port.

    The `known` endpoints have been checked before. Relative paths start at `base`. Raises a `SettingsError` that names
    the option and the endpoint.
    """
    from twisted.internet.endpoints import serverFromString

    if reactor is None:
        # When twistd parses these options, it has already installed the reactor that --reactor selects.
        from twisted.internet import reactor as installed

        reactor = installed
    for option in settings.options():
        if not option.type.endpoint:
            continue
        for text in option.type.write(getattr(settings, option.field)):
            if not text or text in known:
                continue
            try:
                # Twisted opens key files by their relative names.
                with contextlib.chdir(base or Path.cwd()):
                    serverFromString(reactor, of_worker(_without_tls(text), 0))
            except Exception as error:
                problem, fix = _endpoint_complaint(text, error)
                raise settings.error(option.name, f"{quoted(text)} {problem}", fix) from None
            if (complaint := _inherited_complaint(text, reactor)) is not None:
                raise settings.error(option.name, f"{quoted(text)} {complaint[0]}", complaint[1])


def _without_tls(text: str) -> str:
    """Return what Twisted parses of an endpoint. Certificates are ours; see `check_certificates`."""
    return without_tls(text) if Endpoint.parse(text).scheme == "ssl" else text


def check_certificates(settings: SharedSettings, base: Path) -> None:
    """Read the certificates of all ``ssl:`` endpoints. Raises `SettingsError` for one that cannot be used."""
    if not settings.tls_endpoints:
        return
    from pyryrelay.listen.tls.certificates import CertificateError
    from pyryrelay.listen.tls.file_watch import CertificateFiles

    files = CertificateFiles(settings.certificate, settings.tls_endpoints, base, has_others=bool(settings.acme))
    for name, file in files.files():
        try:
            file.read_safely()
        except CertificateError as error:
            problem, fix = f"{quoted(name or file.source)} cannot be used: {error.problem}", error.fix
            if name is not None and not has_tls_files(name) and not os.path.exists(file.chain):
                problem = f"{quoted(name)} has no certificate"
                fix = "add --certificate or --acme NAME, or name PEM files in privateKey= and certKey="
            option = "certificate" if name is None else "listen" if name in settings.listen else "admin-listen"
            raise settings.error(option, problem, fix) from None


def _endpoint_complaint(text: str, error: Exception) -> tuple[str, str]:
    """Return what is wrong with an endpoint, and the fix, or "" for the usual one. Quotes no content of key files."""
    scheme = Endpoint.parse(text).scheme
    if isinstance(error, ValueError) and "Unknown endpoint type" in str(error):
        return f"is of an unknown type {scheme!r}", ""
    if scheme == "systemd" and isinstance(error, LookupError):
        fix = "start pyryrelay from a .socket unit, or write tcp:PORT"
        return "names a socket that systemd did not pass", fix
    return "cannot be parsed by Twisted", ""


def _inherited_complaint(text: str, reactor: object) -> tuple[str, str] | None:
    """Return what is wrong with the socket that systemd passed for an endpoint, and the fix; None if it is correct.

    Twisted trusts ``domain=``, and reads wrong client addresses from a socket of another family.
    """
    from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString

    if Endpoint.parse(text).scheme != "systemd":
        return None
    while is_haproxy(text):
        text = text.partition(":")[2]
    endpoint: Any = serverFromString(reactor, text)
    if not isinstance(endpoint, AdoptedStreamServerEndpoint):
        return None
    try:
        family, kind = _socket_of(endpoint.fileno)
    except OSError as error:
        return f"names a descriptor that is not a socket ({error.strerror})", "start pyryrelay from a .socket unit"
    if kind != socket.SOCK_STREAM:
        return "names a socket that does not accept connections", "write ListenStream= in the .socket unit"
    if family == endpoint.addressFamily:
        return None
    real, named = (str(getattr(one, "name", one)).removeprefix("AF_") for one in (family, endpoint.addressFamily))
    return f"names a socket of {real} as one of {named}", f"write domain={real}"


def _socket_of(descriptor: int) -> tuple[int, int]:
    """Return the family and the type of the socket that a descriptor refers to. Raises `OSError`."""
    copy = os.dup(descriptor)
    try:
        sock = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with sock:
        return sock.family, sock.type
