"""HTTP/1.x messages: the parser of request heads, and the writer of answers. Sans-I/O.

The parser is stricter than RFC 9112 where leniency would let a proxy and this relay read the same bytes differently: no
bare CR or LF, no line folding, no space before the colon, no control characters. Sizes are bytes; text is ISO 8859-1.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

MAX_HEAD_BYTES = 16384
MAX_FIELDS = 100
MAX_LIST_BYTES = 1024
"""Longer lists are regarded as empty: no client that wants an upgrade sends one."""
HEAD_END = b"\r\n\r\n"
_WITHOUT_CONTENT = (204, 304)
"""RFC 9110 section 8.6: no ``Content-Length`` with the first, and with the second only that of the answer to GET."""

# RFC 9110 section 5.6.2 (token) and 5.5 (field values: visible, space, tab and obs-text).
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")
_REQUEST_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_BEGINNING = re.compile(rb"(?:\r\n)?(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]|\r?\Z)")
_ABSOLUTE_FORM = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)


class HeadError(Exception):
    """The bytes are no request head that this server reads; it is to be answered with ``status``."""

    def __init__(self, status: int) -> None:
        super().__init__(HTTPStatus(status).phrase)
        self.status = status


class Head(NamedTuple):
    """A request head. ``path`` has no query; ``fields`` maps lower-case names to values in order of appearance.

    ``authority`` is the host that a target in absolute form names, and None otherwise.
    """

    method: str
    path: str
    version: tuple[int, int]
    fields: Mapping[str, Sequence[str]]
    authority: str | None = None

    @property
    def hosts(self) -> Sequence[str]:
        """All hosts that the request names, each of which some server would go by (RFC 9112 section 3.2.2)."""
        hosts = self.fields.get("host", ())
        return hosts if self.authority is None else (*hosts, self.authority)

    def members(self, name: str) -> list[str]:
        """Return the members of a list-valued field over all its lines (RFC 9110 section 5.6.1), in lower case.

        A list of more than `MAX_LIST_BYTES` has none.
        """
        joined = ",".join(self.fields.get(name, ()))
        if len(joined) > MAX_LIST_BYTES:
            return []
        return [member for part in joined.split(",") if (member := part.strip(" \t").lower())]

    def single(self, name: str) -> str | None:
        """Return the value of a field that occurs exactly once, otherwise None."""
        values = self.fields.get(name, ())
        return values[0] if len(values) == 1 else None


def may_begin(data: bytes | bytearray) -> bool:
    """Tell whether a head may begin like this. If not, as with a TLS handshake, its end need not be waited for.

    One empty line may come before the request (RFC 9112 section 2.2).
    """
    return _BEGINNING.match(data) is not None


def parse_head(data: bytes) -> Head:
    """Parse one head, up to and including the empty line (RFC 9112 sections 2 to 5).

    Raises `HeadError`: 400 for anything malformed, 431 for too many fields, 505 for another major version.
    """
    lines = data.removeprefix(b"\r\n").removesuffix(HEAD_END).decode("latin-1").split("\r\n")
    request = _REQUEST_LINE.fullmatch(lines[0])
    if request is None:
        raise HeadError(400)
    if request[3] != "1":
        raise HeadError(505)
    if len(lines) - 1 > MAX_FIELDS:
        raise HeadError(431)
    version = (1, int(request[4]))
    fields = _parse_fields(lines[1:])
    # RFC 9112 section 3.2: a request that lacks Host, or has more than one, gets 400.
    hosts = len(fields.get("host", ()))
    if hosts > 1 or (hosts == 0 and version >= (1, 1)):
        raise HeadError(400)
    target = request[2]
    if target.startswith("/"):
        return Head(request[1], _path(target), version, fields)
    absolute = _ABSOLUTE_FORM.match(target)
    authority = None if absolute is None else absolute[1]
    return Head(request[1], _path(target if absolute is None else target[absolute.end() :]), version, fields, authority)


def _parse_fields(lines: Sequence[str]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise HeadError(400)
        fields.setdefault(field[1].lower(), []).append(field[2].strip(" \t"))
    return fields


def _path(target: str) -> str:
    """Return the path of a request target, which has no authority (RFC 9112 section 3.2)."""
    if "#" in target:
        raise HeadError(400)
    return target.partition("?")[0] or "/"


def asks_for_websocket(head: Head) -> bool:
    """Tell whether a head asks for WebSocket version 13 (RFC 9110 section 7.8: HTTP/1.0 cannot)."""
    return (
        head.version >= (1, 1)
        and "websocket" in head.members("upgrade")
        and "upgrade" in head.members("connection")
        and head.single("sec-websocket-version") == "13"
    )


def has_body(head: Head) -> bool:
    """Tell whether a body follows the head, or might (RFC 9112 section 6.3)."""
    return "transfer-encoding" in head.fields or any(
        value.strip("0") or not value for value in head.fields.get("content-length", ())
    )


def websocket_key(head: Head) -> str | None:
    """Return the key of an opening handshake (RFC 6455 section 4.2.1); None unless there is one of 16 bytes."""
    key = head.single("sec-websocket-key")
    if key is None:
        return None
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(nonce) == 16 else None


def response(
    status: int, fields: Sequence[tuple[str, str]] = (), body: bytes = b"", *, head_only: bool = False
) -> bytes:
    """Write a complete answer that ends its connection (RFC 9112 section 9.6), without a date."""
    head = response_head(status, fields, len(body))
    return head if head_only else head + body


def response_head(status: int, fields: Sequence[tuple[str, str]], body_bytes: int) -> bytes:
    """Write the head of an answer, up to and including the empty line.

    RFC 9110 section 7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option".
    """
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields]
    connection = "Upgrade, close" if any(name == "Upgrade" for name, _ in fields) else "close"
    if status not in _WITHOUT_CONTENT:
        lines.append(f"Content-Length: {body_bytes}")
    lines += [f"Connection: {connection}", "", ""]
    return "\r\n".join(lines).encode("latin-1")
