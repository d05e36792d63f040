"""Endpoint strings, as far as they can be understood before anything listens. PURE.

Twisted's grammar is ``TYPE:ARGUMENT:...:NAME=VALUE``, a backslash taking the next character as it is.
Twisted has the last word on a string (options.py asks it); this module finds the common mistakes first, in
words that teach, and tells where an endpoint will be reachable.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from pyryrelay.kinds import Kind, MismatchError, Texts

_INTERFACE_AT: Final = {"tcp": 2, "tcp6": 3, "ssl": 5}
"""Endpoint types whose first argument is a port, and the position of their interface."""
_HOST_AND_PORT: Final = re.compile(r"(?:(?P<host>[0-9.]+|localhost)?:)?(?P<port>[0-9]{1,5})")
"""What people write who know no endpoint strings."""
_FIX: Final = (
    "write tcp:PORT:interface=ADDRESS, ssl:PORT:privateKey=FILE:certKey=FILE, unix:PATH or systemd:domain=INET:index=0"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The parts of an endpoint string; a leading ``haproxy:`` is seen through.

    `port` is None for the types that have none, and then `argument` is the path of ``unix:`` or the domain of
    ``systemd:``. `interface` is "" for every address of the machine.
    """

    scheme: str
    port: str | None
    interface: str
    argument: str

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Split `text` as Twisted does. Never raises: what is missing is ""."""
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
        """Whether only this machine can reach it; a host name other than localhost counts as outside."""
        if self.scheme in ("unix", "systemd"):
            return self.scheme == "unix" or self.argument == "UNIX"
        try:
            return self.interface == "localhost" or ipaddress.ip_address(self.interface).is_loopback
        except ValueError:
            return False

    def place(self, text: str) -> object:
        """What two endpoints that cannot both be bound have in common; port 0 is a new port each time."""
        if self.port is None:
            return text
        return (self.port, self.interface) if self.port.strip("0") else object()


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


def _read(text: str) -> str:
    """`text` itself, unless it has one of the common mistakes."""
    if found := _HOST_AND_PORT.fullmatch(text):
        fix = f"write tcp:{found['port']}:interface={found['host'] or '127.0.0.1'}"
        raise MismatchError(text, "is not an endpoint", fix)
    head, interface, address = text.partition("interface=")
    if interface and _is_ipv6(address):
        escaped = address.replace(":", "\\:")
        raise MismatchError(text, "has colons that end its interface", f"write {head}{interface}{escaped}")
    endpoint = Endpoint.parse(text)
    if not endpoint.scheme:
        raise MismatchError(text, "is not an endpoint")
    if endpoint.scheme == "unix" and not endpoint.argument:
        raise MismatchError(text, "has no path")
    if endpoint.port is not None and not _is_port(endpoint.port):
        raise MismatchError(text, "has no port from 0 to 65535")
    return text


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535


ENDPOINTS: Kind[Texts] = Kind(
    "ENDPOINT",
    _FIX,
    lambda texts: tuple(_read(text) for text in texts),
    lambda value: value,
    repeatable=True,
    endpoint=True,
)

OPTIONAL_ENDPOINT: Kind[str] = Kind(
    "ENDPOINT",
    f'{_FIX}, or "" to turn it off',
    lambda texts: texts[0] and _read(texts[0]),
    lambda value: (value,),
    endpoint=True,
)
