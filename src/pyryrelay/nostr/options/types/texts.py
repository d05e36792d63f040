"""Texts in options: names, paths, URLs, the database, JSON. PURE."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from pyryrelay.config.types import InvalidValueError, OptionType, Texts

_PATH: Final = re.compile(r"/[!-\"$->@-~]*")


def _text(metavar: str, fix: str, is_valid: Callable[[str], bool], problem: str) -> OptionType[str]:
    """Return the type of a text."""

    def read(texts: Texts) -> str:
        (text,) = texts
        if not is_valid(text):
            raise InvalidValueError(text, problem)
        return text

    return OptionType(metavar, fix, read, lambda value: (value,))


TEXT: OptionType[str] = _text(
    "TEXT", "write a text of up to 10000 characters", lambda text: len(text) <= 10_000, "is too long"
)
PATH: OptionType[str] = _text(
    "PATH", "write a path that starts with a slash, without a query", lambda t: bool(_PATH.fullmatch(t)), "is no path"
)


def is_relay_url(text: str) -> bool:
    """Tell whether a text is a URL at which a relay may be: ``ws`` or ``wss``, a host, no user, query or fragment."""
    try:
        parts = urlsplit(text)
        is_right = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_right and not (parts.query or parts.fragment or "@" in parts.netloc) and text.isascii()


RELAY_URL: OptionType[str] = _text(
    "URL",
    'write a URL such as wss://relay.example.com/, or "" for none',
    lambda text: not text or is_relay_url(text),
    "is not the URL of a relay",
)


def is_database_url(text: str) -> bool:
    """Tell whether a text names a database that this relay can use."""
    return text.startswith("sqlite:") and len(text) > len("sqlite:") and "\0" not in text


DATABASE: OptionType[str] = _text(
    "URL", "write sqlite:PATH, or sqlite::memory: for trials", is_database_url, "is not a database of this relay"
)


def _is_fees(text: str) -> bool:
    try:
        return not text or isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


FEES: OptionType[str] = _text(
    "JSON", 'write a JSON object as NIP-11 has it, or "" for none', _is_fees, "is not a JSON object"
)
