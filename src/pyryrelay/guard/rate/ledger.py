"""Tokens that were spent here and are to be handed out to others: each once, and those of one key together.

Why memory is bounded: `Ledger.add` takes no new key if there are ``most`` already. Those tokens are not handed out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from itertools import starmap
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Ledger", "Spent"]

K = TypeVar("K", bound=Hashable)


class Spent(NamedTuple, Generic[K]):
    """So many tokens were taken from the bucket of ``key``."""

    key: K
    tokens: int


def _nothing() -> None:
    """Be called for every change, where nobody wants to know."""


class Ledger(Generic[K]):
    """What waits to be handed out. ``on_change`` is called when there is something again, and may be replaced."""

    __slots__ = ("_keys", "_spent", "on_change")

    def __init__(self) -> None:
        """Start empty."""
        self._keys: deque[K] = deque()
        # Few keys wait, so a plain dict is copied seldom when it grows, and it takes half the time of a table.
        self._spent: dict[K, int] = {}
        self.on_change: Callable[[], object] = _nothing

    def __len__(self) -> int:
        """Count the keys that wait."""
        return len(self._keys)

    def tokens(self, key: K) -> int:
        """Return how many tokens of a key wait."""
        return self._spent.get(key, 0)

    def add(self, key: K, tokens: int, most: int) -> None:
        """Have tokens wait; without effect for a new key if ``most`` keys wait already."""
        spent = self._spent.get(key)
        if spent is not None:
            self._spent[key] = spent + tokens
        elif len(self._keys) < most:
            self._keys.append(key)
            self._spent[key] = tokens
            if len(self._keys) == 1:
                self.on_change()

    def take(self, most: int) -> list[Spent[K]]:
        """Hand out the tokens of at most ``most`` keys, oldest first."""
        keys, spent = self._keys, self._spent
        if len(keys) <= most:
            self._keys, self._spent = deque(), {}
            return list(starmap(Spent, spent.items()))
        taken = [keys.popleft() for _ in range(most)]
        return [Spent(key, spent.pop(key)) for key in taken]
