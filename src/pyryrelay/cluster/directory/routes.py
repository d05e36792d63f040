"""Which instance holds a key, as far as it was asked lately. PURE. Times are seconds of a monotonic clock.

An old answer is still used while the directory is away. A wrong one repairs itself: the other instance refuses, or the
connection cannot be made, and the answer is forgotten.
"""

from __future__ import annotations

from typing import Final

from pyryrelay.cluster.directory.members import Member

__all__ = ["LIFE_S", "MAX_ROUTES", "Routes"]

MAX_ROUTES: Final = 10_000
LIFE_S: Final = 5.0


class Routes:
    """The latest answers, at most `MAX_ROUTES` of them."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Member, float]] = {}

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._known)

    def note(self, key: str, member: Member, now: float) -> None:
        """Note who holds a key. The oldest answer is forgotten if there are too many."""
        self._known.pop(key, None)
        if len(self._known) >= MAX_ROUTES:
            del self._known[next(iter(self._known))]
        self._known[key] = (member, now)

    def fresh(self, key: str, now: float) -> Member | None:
        """Return who holds a key, if that was asked within `LIFE_S`."""
        known = self._known.get(key)
        return known[0] if known is not None and now - known[1] < LIFE_S else None

    def last(self, key: str) -> Member | None:
        """Return who held a key when that was asked last."""
        known = self._known.get(key)
        return None if known is None else known[0]

    def forget(self, key: str) -> None:
        """Forget who holds a key."""
        self._known.pop(key, None)
