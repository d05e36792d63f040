"""The options of TLS and host names. PURE.

They are a base of `pyryrelay.config.settings.SharedSettings`; see there for what `option(...)` declares.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pyryrelay.config.groups import LISTENING
from pyryrelay.config.sources import option
from pyryrelay.config.types import InvalidValueError, OptionType, Texts

__all__ = ["CERTIFICATES", "EXPIRES_SOON_DAYS", "HOSTS", "CertificateOptions", "CertificatePlace"]

EXPIRES_SOON_DAYS: Final = 14
"""From so many days before its end on, a certificate is told of: at the start, every day, and by a probe."""


@dataclass(frozen=True, slots=True)
class CertificatePlace:
    """Where a certificate is: the folder or the file ``path``, and the file of its ``key`` if that is another one.

    ``text`` is how the operator wrote it.
    """

    text: str
    path: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> CertificatePlace:
        """Split ``PATH`` or ``CERTIFICATE:KEY``, in which ``\\:`` stands for a colon. Raises `InvalidValueError`."""
        parts = [re.sub(r"\\(.)", r"\1", part) for part in re.split(r"(?<!\\):", text)]
        if len(parts) > 2 or not all(parts) or "\0" in text:
            raise InvalidValueError(text, "names no certificate")
        return cls(text, *parts)


CERTIFICATES: OptionType[tuple[CertificatePlace, ...]] = OptionType(
    "DIR|FILE[:KEY]",
    "write the path of a folder, of a PEM file with certificate and key, or CERTIFICATE:KEY",
    lambda texts: tuple(CertificatePlace.parse(text) for text in texts),
    lambda value: tuple(place.text for place in value),
    repeatable=True,
)

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\]")


def _read_hosts(texts: Texts) -> Texts:
    hosts = []
    for text in texts:
        host = text.lower().removesuffix(".")
        if "//" in host or "/" in host:
            raise InvalidValueError(text, "is a URL", "write the name alone, such as relay.example.org")
        if not _HOST.fullmatch(host) or len(host) > 253:
            raise InvalidValueError(text, "is no host name")
        hosts.append(host)
    return tuple(hosts)


HOSTS: OptionType[Texts] = OptionType(
    "NAME",
    "write a host name without a port, *.NAME for all names one level below, or an address (IPv6 in brackets)",
    _read_hosts,
    lambda value: value,
    repeatable=True,
)


@dataclass(frozen=True, kw_only=True)
class CertificateOptions:
    """The options of TLS and host names."""

    certificate: tuple[CertificatePlace, ...] = option(
        (),
        CERTIFICATES,
        LISTENING,
        help="A certificate for all `ssl:` endpoints: a folder as certbot makes it (`/etc/letsencrypt/live/NAME`, with "
        "`fullchain.pem` and `privkey.pem`, or with `tls.crt` and `tls.key`), one PEM file with the chain and the key, "
        "or `CHAIN:KEY`. Clients get the one that has the name they ask for, and the first one if there is none or "
        "they ask for none. Files are taken over when they change, and no connection is closed for it.",
        example=("/etc/letsencrypt/live/relay.example.org", "chain.pem:key.pem"),
        why="An endpoint can also name one certificate itself, and most relays leave TLS to a proxy.",
    )
    host: tuple[str, ...] = option(
        (),
        HOSTS,
        LISTENING,
        help="A host name of the relay, or `*.NAME` for all names one level below. If any is given, requests that ask "
        "for other hosts, in `Host` or by TLS, get 421 (Misdirected Request). Ports are ignored. `/healthz` is "
        "answered under any name, because load balancers ask for an address.",
        example=("relay.example.org", "*.relay.example.org"),
        why="The relay has no secrets that depend on its name, and clients may know it by an address. Give its names "
        "to turn away scanners, and web pages that reach it under a name of their own.",
    )
