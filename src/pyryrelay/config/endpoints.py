"""Endpoint strings, checked before the relay listens. PURE.

Twisted's grammar is ``TYPE:ARGUMENT:...:NAME=VALUE``, where a backslash escapes the next character. This module finds
common mistakes first and explains how to correct them, and it tells from where an endpoint can be reached. Afterwards
`pyryrelay.cli.twistd_options` has Twisted parse the string.

A path or a port may contain `WORKER`, which stands for the number of a process where several serve as one relay. Such
a text names one endpoint for each of them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from pyryrelay.config.types import InvalidValueError, OptionType, Texts

MAX_PORT: Final = 65_535
WORKER: Final = "{worker}"
_LIKE_WORKER: Final = re.compile(r"\{\s*workers?\s*\}", re.IGNORECASE)

_INTERFACE_AT: Final = {"tcp": 2, "tcp6": 3, "ssl": 5}
"""Endpoint types whose first argument is a port, and the position of their interface."""
_SSL_ARGUMENTS: Final = (
    "port",
    "privateKey",
    "certKey",
    "sslmethod",
    "interface",
    "backlog",
    "extraCertChain",
    "dhParameters",
)
_TLS_FILES: Final = frozenset({"privateKey", "certKey", "extraCertChain"})
_TLS_NO_MORE: Final = {
    "sslmethod": "the relay speaks TLS 1.2 and 1.3",
    "dhParameters": "no cipher that needs them is spoken",
}
_HOST_AND_PORT: Final = re.compile(r"(?:(?P<host>[0-9.]+|localhost)?:)?(?P<port>[0-9]{1,5})")
"""Common spellings of addresses that are not endpoint strings."""
_FIX: Final = (
    "write tcp:PORT:interface=ADDRESS, ssl:PORT:privateKey=FILE:certKey=FILE, unix:PATH or systemd:domain=INET:index=0"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The parts of an endpoint string, without a leading ``haproxy:``.

    `port` is None for types without a port; for these, `argument` is the path of ``unix:`` or the domain of
    ``systemd:``. `interface` is "" for all addresses of the machine.
    """

    scheme: str
    port: str | None
    interface: str
    argument: str

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Split `text` like Twisted. Never raises: missing parts are ""."""
        positional, named = _fields(text)
        while len(positional) > 1 and positional[0].lower() == "haproxy":
            del positional[0]
        scheme = positional[0]
        first = "".join(positional[1:2])
        at = _INTERFACE_AT.get(scheme)
        if at is None:
            return cls(scheme, None, "", named.get("domain", named.get("address", first)))
        interface = named.get("interface", "".join(positional[at : at + 1]))
        return cls(scheme, named.get("port", first), interface, "")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the endpoint. Host names other than localhost count as not local."""
        if self.scheme in ("unix", "systemd"):
            return self.scheme == "unix" or self.argument == "UNIX"
        return is_this_machine(self.interface)

    @property
    def address(self) -> str:
        """The address that it binds to; ``::`` stands for all addresses, IPv4 included."""
        return self.interface or ("::" if self.scheme == "tcp6" else "0.0.0.0")


def is_this_machine(host: str) -> bool:
    """Return whether a host is ``localhost`` or a loopback address, and so always this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def has_worker(text: str) -> bool:
    """Return whether an endpoint is another one in each process."""
    return WORKER in text


def of_worker(text: str, index: int) -> str:
    """Return the endpoint of the process with that number."""
    return text.replace(WORKER, str(index))


def of_workers(texts: Iterable[str], count: int) -> list[str]:
    """Return the endpoints of so many processes together, each once."""
    return [of_worker(text, index) for text in texts for index in range(count if has_worker(text) else 1)]


def for_each_worker(text: str, count: int) -> str:
    """Return an endpoint of so many processes to write in place of one that they share."""
    found = re.match(r"((?:haproxy:)*(?:tcp6?|ssl):)([0-9]+)(.*)", text, re.IGNORECASE | re.DOTALL)
    if found is not None and len(found[2]) > 1 and count <= 10 and int(found[2][:-1] + str(count - 1)) <= MAX_PORT:
        return f"{found[1]}{found[2][:-1]}{WORKER}{found[3]}"
    found = re.match(r"((?:haproxy:)*unix:(?:[^:\\]|\\.)*?)(\.[A-Za-z0-9]+)?(:.*|)$", text, re.IGNORECASE | re.DOTALL)
    if found is not None:
        return f"{found[1]}-{WORKER}{found[2] or ''}{found[3]}"
    return f"unix:/run/pyryrelay/{WORKER}.sock"


def is_haproxy(text: str) -> bool:
    """Return whether Twisted reads PROXY headers of any peer on an endpoint."""
    return text.lower().startswith("haproxy:")


def collide(one: str, other: str) -> bool:
    """Return whether two endpoints exclude each other: they have the same path, or the same port on a common address.

    Port 0 is a new port each time.
    """
    first, second = Endpoint.parse(one), Endpoint.parse(other)
    if first.port is None or second.port is None:
        if first.scheme == second.scheme == "unix":
            return first.argument == second.argument
        return one == other
    if not first.port.strip("0") or int(first.port) != int(second.port):
        return False
    addresses = {first.address, second.address}
    if len(addresses) == 1 or "::" in addresses:
        return True
    # A specific IPv6 address excludes no IPv4 address.
    return "0.0.0.0" in addresses and not any(map(_is_ipv6, addresses))


class TlsFiles(NamedTuple):
    """Names of the PEM files of an ``ssl:`` endpoint; ``chain`` is "" if there is none."""

    key: str
    certificate: str
    chain: str


def tls_files(text: str) -> TlsFiles:
    """Return the files that an ``ssl:`` endpoint names, by the rules and defaults of Twisted."""
    positional, named = _fields(text)
    key = named.get("privateKey", "".join(positional[2:3]) or "server.pem")
    chain = named.get("extraCertChain", "".join(positional[7:8]))
    return TlsFiles(key, named.get("certKey", "".join(positional[3:4]) or key), chain)


def has_tls_files(text: str) -> bool:
    """Return whether an ``ssl:`` endpoint names files of its own."""
    positional, named = _fields(text)
    return not {"privateKey", "certKey"}.isdisjoint(named) or any(positional[2:4])


def without_tls(text: str) -> str:
    """Return the ``tcp:`` endpoint that listens where an ``ssl:`` endpoint does. What is no option of TLS is kept."""
    found = re.match(r"((?:haproxy:)*)ssl:", text, re.IGNORECASE)
    assert found is not None
    positional, named = _fields(text[found.end() :])
    given = {name: value for name, value in zip(_SSL_ARGUMENTS, positional, strict=False) if value} | named
    kept = {name: value for name, value in given.items() if name not in _TLS_FILES}
    port = kept.pop("port", "")
    return ":".join([f"{found[1]}tcp", port, *(f"{name}={_escaped(value)}" for name, value in kept.items())])


def _escaped(value: str) -> str:
    return re.sub(r"([\\:])", r"\\\1", value)


def unix_mode(text: str) -> int | None:
    """Return the permission bits that a ``unix:`` endpoint asks for; None if it names none."""
    positional, named = _fields(text)
    mode = named.get("mode", "".join(positional[2:3]))
    return int(mode, 8) if re.fullmatch("[0-7]{1,4}", mode) else None


def _fields(text: str) -> tuple[list[str], dict[str, str]]:
    fields: list[list[str]] = [[""]]
    characters = iter(text)
    for character in characters:
        if character == ":":
            fields.append([""])
        elif character == "=" and len(fields[-1]) == 1:
            fields[-1].append("")
        else:
            fields[-1][-1] += next(characters, "") if character == "\\" else character
    positional = [field[0] for field in fields if len(field) == 1]
    return positional or [""], {field[0]: field[1] for field in fields if len(field) == 2}


def _checked(text: str) -> str:
    """Return `text`. Raises `InvalidValueError` for common mistakes."""
    if found := _HOST_AND_PORT.fullmatch(text):
        fix = f"write tcp:{found['port']}:interface={found['host'] or '127.0.0.1'}"
        raise InvalidValueError(text, "is not an endpoint", fix)
    head, interface, address = text.partition("interface=")
    if interface and _is_ipv6(address):
        escaped = address.replace(":", "\\:")
        raise InvalidValueError(text, "has colons that end its interface", f"write {head}{interface}{escaped}")
    for found_worker in _LIKE_WORKER.findall(text):
        if found_worker != WORKER:
            raise InvalidValueError(text, f"has {found_worker}, which is not known", f"write {WORKER}")
    endpoint = Endpoint.parse(of_worker(text, 0))
    if not endpoint.scheme:
        raise InvalidValueError(text, "is not an endpoint")
    if endpoint.scheme == "ssl":
        for name in _TLS_NO_MORE.keys() & _fields(text)[1].keys():
            raise InvalidValueError(text, f"has {name}=, which has no meaning", f"remove it: {_TLS_NO_MORE[name]}")
    if endpoint.scheme == "unix" and not endpoint.argument:
        raise InvalidValueError(text, "has no path")
    if endpoint.port is not None and not _is_port(endpoint.port):
        raise InvalidValueError(text, "has no port from 0 to 65535")
    return text


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MAX_PORT


ENDPOINTS: OptionType[Texts] = OptionType(
    "ENDPOINT",
    _FIX,
    lambda texts: tuple(_checked(text) for text in texts),
    lambda value: value,
    repeatable=True,
    endpoint=True,
)

OPTIONAL_ENDPOINT: OptionType[str] = OptionType(
    "ENDPOINT",
    f'{_FIX}, or "" to turn it off',
    lambda texts: texts[0] and _checked(texts[0]),
    lambda value: (value,),
    endpoint=True,
)
