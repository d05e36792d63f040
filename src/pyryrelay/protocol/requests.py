"""Requests, as an application sees them, and its answers in plain HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from pyryrelay.guard import ClientAddress

Message: TypeAlias = tuple[bytes, bool]
"""A whole WebSocket message: its payload, and whether it is a binary message. Text is known to be valid UTF-8."""

Fields: TypeAlias = Sequence[tuple[str, str]]
"""Header fields of an answer, as name and value."""

Headers: TypeAlias = Mapping[str, Sequence[str]]
"""Header fields of a request: lower-case names, each with its values in order, decoded as ISO 8859-1."""


class Request(NamedTuple):
    """The part of a validated upgrade request that an application may see."""

    path: str
    headers: Headers
    client: ClientAddress

    def header(self, name: str) -> str:
        """Return the only value of a header, "" if it is missing. Raises `RepeatedHeaderError`."""
        return only_value(self.headers, name)


class HttpRequest(NamedTuple):
    """The part of a validated plain HTTP request that an application may see.

    ``client`` is None if it is unknown, as for peers of a UNIX socket.
    """

    method: str
    path: str
    headers: Headers
    client: ClientAddress | None


def only_value(headers: Headers, name: str) -> str:
    """Return the only value of a header, "" if it is missing.

    Raises `RepeatedHeaderError` if it was sent more than once: two parsers that choose different ones would disagree
    about the identity of the sender.
    """
    values = headers.get(name, ())
    if len(values) > 1:
        raise RepeatedHeaderError(name)
    return values[0] if values else ""


class RepeatedHeaderError(ValueError):
    """A header that must be unique was sent more than once. The error has its name, never a value."""


@dataclass(frozen=True, slots=True)
class HttpRefusal:
    """A refusal in plain HTTP: status code, a fixed word for logs and metrics, and additional header fields."""

    status: int
    reason: str
    fields: Fields = ()


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP answer that is not a refusal, such as that of `/healthz`: status code, header fields, body."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


HttpAnswer: TypeAlias = Page | HttpRefusal
"""The answer of an application to a plain HTTP request."""
