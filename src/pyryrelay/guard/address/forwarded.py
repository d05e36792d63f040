"""The ``Forwarded`` header (RFC 7239): the chain of nodes that its lines name, and the address in a node.

A client writes the left end of a header and proxies append to the right one, so elements are read from the right, and
only as many as are needed: what a client puts in front costs nothing, and hides nothing. Each element is read strictly,
and one that does not fit the grammar ends the reading, because a guess could be wrong. Blanks around ``;`` are allowed,
as around all parameters (RFC 9110 section 5.6.6), and empty list elements are ignored (section 5.6.1).

A comma may stand inside a quoted-string, and nothing right of it says whether it does. But the text from a comma to the
end of an element is itself an element only if the comma separates two. If it stood inside a string, each quotation mark
would close what here it opens, and open what it closes. Backslashes, which are for strings alone, would have to be
inside strings in both readings, which are never inside one at the same place; and without backslashes an element has
an even number of quotation marks, which would leave the string open. So the shortest text that is an element is the
last element of every well-formed header.

No text raises an error. The work for one element is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

__all__ = ["MAX_EMPTY_ELEMENTS", "UNKNOWN_NODE", "forwarded_for", "node_address"]

MAX_EMPTY_ELEMENTS: Final = 64
"""Empty elements of a list that are ignored; a header with more is malformed."""

UNKNOWN_NODE: Final = "unknown"
"""What a proxy writes that does not know, or does not tell, whom it forwards (RFC 7239 section 6.2)."""

# RFC 9110 sections 5.6.2 (token) and 5.6.4 (quoted-string). Possessive, so that nothing is ever tried twice.
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED: Final = r'"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]++|\\[\t \x21-\x7e\x80-\xff])*+)"'
_PARAMETER: Final = re.compile(rf"[ \t]*+(?:({_TOKEN})=(?:({_TOKEN})|{_QUOTED}))?+[ \t]*+(;|\Z)")
_QUOTED_PAIR: Final = re.compile(r"\\(.)")
_OWS: Final = " \t"
_MAX_ELEMENT: Final = 512
_MAX_COMMAS: Final = 32
"""How long an element may be, and how many commas may stand inside its strings."""

# RFC 7239 section 6. An address with a port and one with an obfuscated port, which tells nothing.
_HOST: Final = r"(?:[0-9.]{7,15}|\[[0-9A-Fa-f:.]{2,45}\])"
_NODE: Final = re.compile(rf"({_HOST}(?::[0-9]{{1,5}})?)|({_HOST}):_[A-Za-z0-9._-]+")


def forwarded_for(lines: Sequence[str]) -> Iterator[str | None]:
    """Yield the node in the ``for`` parameter of each element, the last of the last line first (RFC 7239 section 4).

    Nodes are text, without quotation marks and escapes, and may be anything: `node_address` judges them. An element
    without ``for`` counts as ``unknown``. None stands for an element that is malformed, and nothing comes after it.
    """
    empty = 0
    for line in reversed(lines):
        end = len(line)
        while end >= 0:
            start, node = _last_element(line, end)
            if not line[start:end].strip(_OWS):
                empty += 1
                if empty > MAX_EMPTY_ELEMENTS:
                    node = None
            elif node is not None:
                yield node
            if node is None:
                yield None
                return
            end = start - 1


def _last_element(line: str, end: int) -> tuple[int, str | None]:
    """Return where the last element of ``line[:end]`` begins, and its node; None for one that is malformed."""
    comma = end
    for _ in range(_MAX_COMMAS):
        comma = line.rfind(",", max(0, end - _MAX_ELEMENT), comma)
        if comma < 0 and end > _MAX_ELEMENT:
            break
        node = _node(line, comma + 1, end)
        # A comma inside a string is followed by the quotation mark that ends it.
        if node is not None or comma < 0 or '"' not in line[comma:end]:
            return comma + 1, node
    return 0, None


def _node(line: str, position: int, end: int) -> str | None:
    """Return the node of the element ``line[position:end]``, None if it is none."""
    names: set[str] = set()
    node = UNKNOWN_NODE
    while True:
        part = _PARAMETER.match(line, position, end)
        if part is None:
            return None
        position = part.end()
        name, token, quoted, separator = part.groups()
        if name is not None:
            name = name.lower()
            # RFC 7239 section 4: "Each parameter MUST NOT occur more than once per field-value."
            if name in names:
                return None
            names.add(name)
            if name == "for":
                node = token if token is not None else _QUOTED_PAIR.sub(r"\1", quoted)
        if not separator:
            return node


def node_address(node: str) -> str | None:
    """Return the address in a node, with its port if that is a number, or None for a node without an address.

    IPv6 addresses come in brackets (RFC 7239 section 6), so that none is confused with its port.
    """
    found = _NODE.fullmatch(node)
    return None if found is None else found[1] or found[2]
