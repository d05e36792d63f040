"""The options of automatic certificates. PURE.

They are a base of `pyryrelay.config.settings.SharedSettings`; see there for what `option(...)` declares.
"""

# `option` makes a dataclass field, which a linter cannot know.
# ruff: noqa: RUF009

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pyryrelay.config.endpoints import Endpoint, is_this_machine
from pyryrelay.config.groups import TLS
from pyryrelay.config.sources import option
from pyryrelay.config.types import InvalidValueError, OptionType, Texts

__all__ = ["ACME_NAMES", "AcmeOptions", "ChallengeKind", "challenge_kinds", "directory_url"]

ChallengeKind: TypeAlias = Literal["http-01", "tls-alpn-01"]
"""How the authority checks that a name is ours: by HTTP on port 80, or by a TLS handshake on port 443."""

_KNOWN: Final = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
"""Directories that have a name of their own."""

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_EMAIL: Final = re.compile(r"[!-?A-~]+@[!-?A-~]+")


def _read_names(texts: Texts) -> Texts:
    names = []
    for text in texts:
        name = text.lower().removesuffix(".")
        if name.startswith("*."):
            raise InvalidValueError(
                text, "is a wildcard, which is proven by DNS only", "write each name, or use --certificate"
            )
        if _is_address(name):
            raise InvalidValueError(text, "is an address", "write the name of the relay, such as relay.example.org")
        if not _NAME.fullmatch(name) or len(name) > 253:
            raise InvalidValueError(text, "is no host name that an authority would certify")
        names.append(name)
    return tuple(dict.fromkeys(names))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


ACME_NAMES: OptionType[Texts] = OptionType(
    "NAME",
    "write a full host name such as relay.example.org",
    _read_names,
    lambda value: value,
    repeatable=True,
)


def _read_directory(texts: Texts) -> str:
    text = texts[0]
    if text in _KNOWN:
        return text
    try:
        parts = urlsplit(text)
        is_url = bool(parts.hostname) and parts.port != 0 and text.isascii() and text.isprintable() and " " not in text
    except ValueError:
        parts, is_url = urlsplit(""), False
    if not is_url or parts.scheme not in ("https", "http"):
        raise InvalidValueError(text, "is no URL")
    if "@" in parts.netloc:
        raise InvalidValueError("...", "has a user name or a password, which ACME does not use")
    if parts.scheme == "http" and not is_this_machine(parts.hostname or ""):
        raise InvalidValueError(text, "is not encrypted (RFC 8555 section 6.1)", "write https://...")
    return text


DIRECTORY: OptionType[str] = OptionType(
    "URL", f"write {', '.join(_KNOWN)}, or an https:// URL", _read_directory, lambda value: (value,)
)


def directory_url(value: str) -> str:
    """Return the URL that a value of ``--acme-directory`` stands for."""
    return _KNOWN.get(value, value)


def _read_folder(texts: Texts) -> str:
    if not texts[0] or "\0" in texts[0]:
        raise InvalidValueError(texts[0], "is no path")
    return texts[0]


FOLDER: OptionType[str] = OptionType("DIR", "write the path of a folder", _read_folder, lambda value: (value,))


def _read_email(texts: Texts) -> str:
    text = texts[0]
    if text and not _EMAIL.fullmatch(text):
        raise InvalidValueError(text, "is no address of e-mail")
    return text


EMAIL: OptionType[str] = OptionType(
    "ADDRESS", 'write an address such as operator@example.org, or "" for none', _read_email, lambda value: (value,)
)


@dataclass(frozen=True, kw_only=True)
class AcmeOptions:
    """The options of automatic certificates."""

    acme: Texts = option(
        (),
        ACME_NAMES,
        TLS,
        help="A name of the relay for which it gets a certificate by itself, by ACME (RFC 8555), and renews it in "
        "time. Using it means that you agree to the terms of the certification authority. Clients and the authority "
        "must reach the relay by this name: an `ssl:` endpoint on port 443 proves it, or a `tcp:` endpoint on port 80. "
        "Needs `pip install 'pyryrelay[acme]'`.",
        restart=True,
        example=("relay.example.org", "www.example.org"),
        why="Certificates of your own, or a proxy with TLS in front, need no authority to reach this machine.",
    )
    acme_directory: str = option(
        "letsencrypt",
        DIRECTORY,
        TLS,
        help="The certification authority: `letsencrypt`, `letsencrypt-staging` (to try things out: its limits are "
        "higher, and no client trusts its certificates), or the URL of another one's directory. The root certificate "
        "of an authority of your own is trusted if the environment variable `REQUESTS_CA_BUNDLE` names its file.",
        restart=True,
        example="letsencrypt-staging",
        why="Let's Encrypt is free, and needs no registration.",
    )
    acme_cache: str = option(
        "pyryrelay-acme",
        FOLDER,
        TLS,
        help="The folder in which the account and the certificates are kept with their keys, relative to the run "
        "directory. It is created with mode 700, and must not be accessible to others.",
        restart=True,
        example="/var/lib/pyryrelay/acme",
        why="A restart must not order certificates anew: authorities allow only some of them in a week.",
    )
    acme_email: str = option(
        "",
        EMAIL,
        TLS,
        help="The address under which the authority may reach you, used when the account is made.",
        restart=True,
        example="operator@example.org",
        why="No authority needs it, and some no longer keep it.",
    )


def challenge_kinds(endpoints: Sequence[str]) -> tuple[ChallengeKind, ...]:
    """Return how these endpoints can prove a name, the most promising way first.

    An authority connects to port 443 for ``tls-alpn-01``, and to port 80 for ``http-01``. A firewall may lead these to
    other ports, so endpoints on others come last.
    """
    found: dict[ChallengeKind, None] = {}
    parsed = [endpoint for endpoint in map(Endpoint.parse, endpoints) if endpoint.scheme in _PROOFS]
    for is_usual in (True, False):
        for endpoint in parsed:
            kind, port = _PROOFS[endpoint.scheme]
            if (endpoint.port == port) is is_usual:
                found.setdefault(kind)
    return tuple(found)


_PROOFS: Final[Mapping[str, tuple[ChallengeKind, str]]] = {
    "ssl": ("tls-alpn-01", "443"),
    "tcp": ("http-01", "80"),
    "tcp6": ("http-01", "80"),
}
"""What endpoints of each scheme can prove, and the port on which they do it."""
