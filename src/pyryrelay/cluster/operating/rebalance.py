"""Move some of the keys that an instance holds to others, so that each has as many: after one was added, for instance.

The peers of a key are closed with 1001 in one go, and connect again through the balancer, which chooses the instance.
The keys whose peers other instances have accepted lately go first, because the balancer sends them there already. With
a balancer that hashes keys, those are the ones that moved when the instance was added; others may come back, which
costs them one reconnect. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final, Protocol

from pyryrelay.cluster.directory.members import Listed
from pyryrelay.protocol import Cancellable

__all__ = ["STEP_S", "Movable", "Rebalance", "share_of"]

STEP_S: Final = 0.1
"""The shortest time between two steps; a step moves as many keys as are due."""


class Movable(Protocol):
    """What is held in this process."""

    def held_keys(self) -> Collection[str]:
        """Return all keys that are held now."""

    def holds(self, key: str) -> bool:
        """Tell whether a key is held."""

    def move(self, key: str) -> None:
        """Close all peers of a key, so that they connect again."""


def share_of(listed: Sequence[Listed]) -> int:
    """Return how many keys each instance should hold at most; only those whose lease is valid count."""
    living = [each for each in listed if each.is_genuine and each.left_s > 0]
    return ceil(sum(each.load.keys for each in living) / len(living)) if living else 0


@dataclass(eq=False)
class Rebalance:
    """See the module's docstring. ``is_astray`` tells whether peers of a key came by another instance lately."""

    held: Movable
    is_astray: Callable[[str], bool]
    now: Callable[[], float]
    call_later: Callable[[float, Callable[[], None]], Cancellable]
    shuffle: Callable[[list[str]], object] = random.shuffle
    moved: list[str] = field(default_factory=list)
    _left: list[str] = field(default_factory=list)
    _began_at: float = 0.0
    _over_s: float = 0.0
    _timer: Cancellable | None = None

    @property
    def is_running(self) -> bool:
        """Whether keys are still to be moved."""
        return self._timer is not None

    def plan(self, share: int) -> list[str]:
        """Return the keys to move, the last one first, so that this instance holds ``share`` of them."""
        keys = list(self.held.held_keys())
        self.shuffle(keys)
        keys.sort(key=self.is_astray)
        return keys[-max(0, len(keys) - share) :] if len(keys) > share else []

    def start(self, keys: list[str], over_s: float) -> None:
        """Move keys, spread evenly over that time."""
        self.stop()
        self.moved = []
        self._left, self._over_s, self._began_at = keys, over_s, self.now()
        if keys:
            self._step()

    def stop(self) -> None:
        """Move no more keys."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._left = []

    def _step(self) -> None:
        self._timer = None
        count, elapsed_s = len(self.moved) + len(self._left), self.now() - self._began_at
        due = count if elapsed_s >= self._over_s else 1 + int(count * elapsed_s / self._over_s)
        while self._left and len(self.moved) < due:
            key = self._left.pop()
            self.moved.append(key)
            self.held.move(key)
        if self._left:
            self._timer = self.call_later(max(STEP_S, self._over_s / count), self._step)

    def state(self) -> dict[str, Any]:
        """Return how far it is: ``back`` counts the keys that were moved, and are held here again."""
        left_s = self._began_at + self._over_s - self.now() if self.is_running else 0.0
        return {
            "keys": len(self.held.held_keys()),
            "to_move": len(self._left),
            "moved": len(self.moved),
            "back": sum(map(self.held.holds, self.moved)),
            "left_s": round(max(0.0, left_s), 1),
        }
