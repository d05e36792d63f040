"""The host names that requests may ask for. PURE.

A page of somebody else's can have a name of its own point at this relay, and so make the browsers of its visitors send
requests here (DNS rebinding). The header ``Host`` has that name, because pages cannot change it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["HostPolicy"]

_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[^:@\[\]]*)(?::[0-9]*)?")
"""A host and perhaps a port (RFC 3986 section 3.2), without user information."""


class HostPolicy:
    """The names that are allowed; a policy without any allows everything, and is false.

    ``*.example.org`` stands for all names one level below ``example.org``, as in certificates. IPv6 addresses are
    written in brackets. All names are in lower case, without a port and without a dot at the end.
    """

    __slots__ = ("_exact", "_parents", "names")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = tuple(names)
        self._exact = frozenset(name for name in self.names if not name.startswith("*."))
        self._parents = frozenset(name[2:] for name in self.names if name.startswith("*."))

    def __bool__(self) -> bool:
        """Tell whether anything is refused."""
        return bool(self.names)

    def allows(self, authority: str) -> bool:
        """Tell whether a name is allowed, as ``Host`` has it: in any case, and perhaps with a port."""
        if authority in self._exact:
            return True
        found = _AUTHORITY.fullmatch(authority)
        if found is None:
            return False
        name = found[1].lower().removesuffix(".")
        label, _, parent = name.partition(".")
        return name in self._exact or (label != "" and parent in self._parents)
