"""Connections that move to another process, which takes over: each is served as always until its turn comes.

Then nothing more is read from it, and it is closed with 1001 once the events are answered that it has sent. So no
client is refused an event because of the move: it is answered, or the connection ends before it is read, and the client
sends it again to the process that it connects to next. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil
from typing import Final, Protocol

__all__ = ["Mover", "Moving"]

STEP_S: Final = 0.05
FEW_PEERS: Final = 100
"""So many connections have their turn at once."""
PEERS_PER_STEP: Final = 50
"""How many have it in a step, if time allows that: a thousand in a second."""


class Mover(Protocol):
    """A connection."""

    def leave(self) -> None:
        """Read nothing more, and close the connection once its events are answered."""

    def stay(self) -> None:
        """Undo `leave` unless the connection is closed."""


class Moving:
    """The turns of all connections; ``done`` is called, perhaps by `begin`, when all have had theirs."""

    def __init__(
        self,
        movers: Iterable[Mover],
        over_s: float,
        call_later: Callable[[float, Callable[[], None]], object],
        done: Callable[[], None],
    ) -> None:
        self._movers = list(movers)
        self._call_later = call_later
        self._done = done
        count = len(self._movers)
        steps = 1 if count <= FEW_PEERS else max(1, ceil(min(over_s / STEP_S, count / PEERS_PER_STEP)))
        self._per_step = ceil(count / steps)
        self._is_cancelled = False

    @property
    def is_over(self) -> bool:
        """Whether no connection waits for its turn."""
        return not self._movers

    def begin(self) -> None:
        """Let some connections have their turn, and more after a while."""
        for _ in range(min(self._per_step, len(self._movers))):
            self._movers.pop().leave()
        if self._movers:
            self._call_later(STEP_S, self._go_on)
        else:
            self._done()

    def _go_on(self) -> None:
        if not self._is_cancelled:
            self.begin()

    def cancel(self) -> None:
        """Let no more connections have their turn; ``done`` is not called any more."""
        self._is_cancelled = True
        self._movers.clear()
