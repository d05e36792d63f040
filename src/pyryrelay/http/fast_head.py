"""Fast recognition of plain request heads on the paths of applications. PURE.

A client that is refused for its address gets the same answer whatever is in its head, if the head can be read, names
such a path, and asks for an upgrade or does not. So a refusal needs no parsed head; it is enough to know that the
parser of `pyryrelay.http.message` would accept it. `FastHeadParser` knows that of the plainest kind of head, a complete
``GET`` in origin form over HTTP/1.1 that announces no body, and recognises no other: behind a body that arrives later,
an answer needs a connection that ends in order. A test compares both parsers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from pyryrelay.http.message import MAX_FIELDS

_HOST = b"host"
_UPGRADE = b"upgrade"
_BODY = frozenset({b"content-length", b"transfer-encoding"})


class FastHead(NamedTuple):
    """What is known of a head: the name of the application, and its ``end``.

    ``is_marked``: it has a field with one of the marked names. ``asks``: it has a field ``Upgrade``.
    """

    name: str
    is_marked: bool
    asks: bool
    end: int


class FastHeadParser:
    """Recognises heads. ``names`` has the application's name for each path, ``marked`` lower-case field names."""

    __slots__ = ("_head", "_names", "_telling")

    def __init__(self, names: Mapping[str, str], marked: Iterable[str]) -> None:
        self._names = {path.encode("ascii"): name for path, name in names.items()}
        paths = b"|".join(map(re.escape, self._names))
        # The grammar of `pyryrelay.http.message`. Repetitions are possessive, so time is linear in what was received.
        self._head = re.compile(
            rb"GET (%s)(?:\?[\x21\x22\x24-\x7e]*+)? HTTP/1\.1"
            rb"(?:\r\n[!#$%%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+){1,%d}+\r\n\r\n" % (paths, MAX_FIELDS)
        )
        telling = b"|".join([_HOST, _UPGRADE, *sorted(_BODY), *(re.escape(name.encode("ascii")) for name in marked)])
        self._telling = re.compile(rb"\r\n(%s):" % telling)

    def __call__(self, data: bytes) -> FastHead | None:
        """Return what is known of the head that ``data`` begins with; None if it is not a plain one."""
        head = self._head.match(data)
        if head is None:
            return None
        end = head.end()
        # Lines end nowhere else, so each match is a field.
        telling = self._telling.findall(data[:end].lower())
        # RFC 9112 section 3.2 requires exactly one.
        if telling.count(_HOST) != 1:
            return None
        upgrades = telling.count(_UPGRADE)
        is_marked = len(telling) > 1 + upgrades
        if is_marked and not _BODY.isdisjoint(telling):
            return None
        return FastHead(self._names[head[1]], is_marked, upgrades > 0, end)


def field_values(data: bytes, end: int, name: str) -> list[str]:
    """Return the values of all fields ``name`` of the plain head ``data[:end]``, as `parse_head` would."""
    return [value.decode("latin-1").strip(" \t") for value in _field(name).findall(data, 0, end)]


@lru_cache
def _field(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"\r\n%s:([^\r]*)" % re.escape(name.encode("ascii")), re.IGNORECASE)
