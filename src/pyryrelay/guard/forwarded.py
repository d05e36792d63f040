"""The ``Forwarded`` header (RFC 7239): the chain of nodes that its lines name, and the address in a node.

The syntax is read strictly, because whoever sends a line writes its left end and a proxy appends the right one: a
quotation mark that is left open, say, would hide what the proxy wrote. A line that does not fit the grammar therefore
spoils the whole header, and no reading of it is guessed. Blanks around ``;`` are allowed, as around all parameters
(RFC 9110 section 5.6.6), and empty list elements are ignored (section 5.6.1).

All functions take linear time and raise nothing on any text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UNKNOWN_NODE", "forwarded_for", "node_address"]

UNKNOWN_NODE: Final = "unknown"
"""What a proxy writes that does not know, or does not tell, whom it forwards (RFC 7239 section 6.2)."""

# RFC 9110 sections 5.6.2 (token) and 5.6.4 (quoted-string). Possessive, so that nothing is ever tried twice.
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED: Final = r'"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]++|\\[\t \x21-\x7e\x80-\xff])*+)"'
_PARAMETER: Final = re.compile(rf"[ \t]*+(?:({_TOKEN})=(?:({_TOKEN})|{_QUOTED}))?+[ \t]*+([,;]|\Z)")
_QUOTED_PAIR: Final = re.compile(r"\\(.)")

# RFC 7239 section 6. An address with a port and one with an obfuscated port, which tells nothing.
_HOST: Final = r"(?:[0-9.]{7,15}|\[[0-9A-Fa-f:.]{2,45}\])"
_NODE: Final = re.compile(rf"({_HOST}(?::[0-9]{{1,5}})?)|({_HOST}):_[A-Za-z0-9._-]+")


def forwarded_for(lines: Sequence[str]) -> list[str] | None:
    """Return the node in the ``for`` parameter of each element, over all lines in order (RFC 7239 section 4).

    Nodes are text, without quotation marks and escapes, and may be anything: `node_address` judges them. An element
    without ``for`` counts as ``unknown``. None if a line is malformed, or an element repeats a parameter.
    """
    nodes: list[str] = []
    for line in lines:
        found = _nodes(line)
        if found is None:
            return None
        nodes += found
    return nodes


def _nodes(line: str) -> list[str] | None:
    """Read one line."""
    nodes: list[str] = []
    names: set[str] = set()
    node, has_parts, position = UNKNOWN_NODE, False, 0
    while True:
        part = _PARAMETER.match(line, position)
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
        has_parts = has_parts or name is not None or separator == ";"
        if separator == ";":
            continue
        if has_parts:
            nodes.append(node)
        if not separator:
            return nodes
        names.clear()
        node, has_parts = UNKNOWN_NODE, False


def node_address(node: str) -> str | None:
    """Return the address in a node, with its port if that is a number, or None for a node without an address.

    IPv6 addresses come in brackets (RFC 7239 section 6), so that none is confused with its port.
    """
    found = _NODE.fullmatch(node)
    return None if found is None else found[1] or found[2]
