"""A glance at what a connection sent first: is it the plain head of an attempt on an application's path? PURE.

Whoever is refused for its address gets the same answer whatever its head says, as long as that can be read and names
such a path. So a refusal needs no parsed head, only the certainty that `pyryrelay.wire.http.parse_head` would accept
it. `Glance` gives it for the plainest kind, a complete ``GET`` in origin form over HTTP/1.1, and says nothing about
any other: what it recognises is a strict subset, and a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from pyryrelay.wire.http import MAX_FIELDS

_HOST = b"host"


class Glance:
    """Call it with received bytes: the application's name, whether there are fields of ``marked``, the head's length.

    Or None. ``names`` has the name for each path, ``marked`` field names in lower case. What follows the head does not
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
        telling = b"|".join([_HOST, *(re.escape(name.encode("ascii")) for name in marked)])
        self._telling = re.compile(rb"\r\n(%s):" % telling)

    def __call__(self, data: bytes) -> tuple[str, bool, int] | None:
        head = self._head.match(data)
        if head is None:
            return None
        end = head.end()
        # Lines end nowhere else, so these are fields.
        telling = self._telling.findall(data[:end].lower())
        # RFC 9112 section 3.2 wants exactly one.
        if telling.count(_HOST) != 1:
            return None
        return self._names[head[1]], len(telling) > 1, end


def field_values(data: bytes, end: int, name: str) -> list[str]:
    """The values of all fields ``name`` of the plain head ``data[:end]``, as the parser of whole heads has them."""
    return [value.decode("latin-1").strip(" \t") for value in _field(name).findall(data, 0, end)]


@lru_cache
def _field(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"\r\n%s:([^\r]*)" % re.escape(name.encode("ascii")), re.IGNORECASE)
