"""A glance at what a connection sent first: is it the plain head of an attempt on an application's path? PURE.

Whoever is refused for its address gets the same answer whatever its head says, as long as that can be read, names such
a path, and asks for an upgrade or does not. So a refusal needs no parsed head, only the certainty that
`pyryrelay.http.message.parse_head` would accept it. `FastHeadParser` gives it for the plainest kind, a complete ``GET``
in origin form over HTTP/1.1, and says nothing about any other. What it recognises is a strict subset, and a test
compares both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from pyryrelay.http.message import MAX_FIELDS

_HOST = b"host"
_UPGRADE = b"upgrade"


class FastHead(NamedTuple):
    """What is known of a head: the application's name, what its fields tell, and its length.

    ``is_marked``: there is a field of the marked names. ``asks``: there is one named ``Upgrade``.
    """

    name: str
    is_marked: bool
    asks: bool
    end: int


class FastHeadParser:
    """Call it with received bytes: a `FastHead`, or None.

    ``names`` has the name for each path, ``marked`` field names in lower case. What follows the head does not
    matter.
    """

    __slots__ = ("_head", "_names", "_telling")

    def __init__(self, names: Mapping[str, str], marked: Iterable[str]) -> None:
        self._names = {path.encode("ascii"): name for path, name in names.items()}
        paths = b"|".join(map(re.escape, self._names))
        # The grammar of `http`, with each repetition possessive: time is linear in what was received.
        self._head = re.compile(
            rb"GET (%s)(?:\?[\x21\x22\x24-\x7e]*+)? HTTP/1\.1"
            rb"(?:\r\n[!#$%%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+){1,%d}+\r\n\r\n" % (paths, MAX_FIELDS)
        )
        telling = b"|".join([_HOST, _UPGRADE, *(re.escape(name.encode("ascii")) for name in marked)])
        self._telling = re.compile(rb"\r\n(%s):" % telling)

    def __call__(self, data: bytes) -> FastHead | None:
        head = self._head.match(data)
        if head is None:
            return None
        end = head.end()
        # Lines end nowhere else, so these are fields.
        telling = self._telling.findall(data[:end].lower())
        # RFC 9112 section 3.2 wants exactly one.
        if telling.count(_HOST) != 1:
            return None
        upgrades = telling.count(_UPGRADE)
        return FastHead(self._names[head[1]], len(telling) > 1 + upgrades, upgrades > 0, end)


def field_values(data: bytes, end: int, name: str) -> list[str]:
    """The values of all fields ``name`` of the plain head ``data[:end]``, as the parser of whole heads has them."""
    return [value.decode("latin-1").strip(" \t") for value in _field(name).findall(data, 0, end)]


@lru_cache
def _field(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"\r\n%s:([^\r]*)" % re.escape(name.encode("ascii")), re.IGNORECASE)
