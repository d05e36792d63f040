"""The URLs that push wakes are sent to: HTTPS, or plain HTTP to this machine. PURE."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, urlsplit

from pyryrelay.config.endpoints import is_this_machine
from pyryrelay.config.types import InvalidValueError, OptionType, Texts

MAX_URL_CHARS: Final = 1024


def url_problem(text: str) -> str | None:
    """Return what is wrong with a URL that secrets are sent to, as a phrase that follows it; None if it can be used."""
    if len(text) > MAX_URL_CHARS or not text.isascii() or not text.isprintable() or " " in text:
        return "is no URL"
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        return "is no URL"
    if not host or port == 0 or url.scheme not in ("http", "https"):
        return "is no URL that begins with https://"
    if url.username is not None or url.password is not None:
        return "contains a user name"
    if url.query or url.fragment:
        return "has a query or a fragment"
    return _plain_problem(url, host)


def _plain_problem(url: SplitResult, host: str) -> str | None:
    return None if url.scheme == "https" or is_this_machine(host) else "is not encrypted and leaves this machine"


def _read_url(texts: Texts) -> str:
    (text,) = texts
    problem = url_problem(text)
    if problem is not None:
        raise InvalidValueError(text, problem)
    return text.rstrip("/")


URL: OptionType[str] = OptionType(
    "URL", "write a URL that begins with https://, or with http:// and a loopback address", _read_url, lambda v: (v,)
)
"""A base URL, without a slash at its end."""
