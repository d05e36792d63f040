"""The keys whose peers came here by another instance lately: the balancer sends them to that one. PURE."""

from __future__ import annotations

from typing import Final

__all__ = ["MOST", "Strays"]

MOST: Final = 10_000
"""How many keys are remembered; the one that was noted longest ago is forgotten first."""


class Strays:
    """See the module's docstring."""

    __slots__ = ("_keys", "_most")

    def __init__(self, most: int = MOST) -> None:
        self._keys: dict[str, None] = {}
        self._most = most

    def __contains__(self, key: object) -> bool:
        """Tell whether a key is remembered."""
        return key in self._keys

    def note(self, key: str) -> None:
        """Remember a key."""
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > self._most:
            del self._keys[next(iter(self._keys))]

    def forget(self, key: str) -> None:
        """Forget a key that is not held here any more."""
        self._keys.pop(key, None)
