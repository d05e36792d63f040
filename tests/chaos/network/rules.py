"""What becomes of a frame between two machines of the chaos driver's network. PURE. Times are seconds.

Machines have numbers. A *path* leads from one to another, so a connection uses two of them, and each may fail alone.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

__all__ = ["CUT", "WELL", "Path", "Paths", "State", "mac_of"]


class Path(NamedTuple):
    """One way between two machines."""

    source: int
    destination: int


class State(NamedTuple):
    """How a path is: the part of frames that is lost, and how long the others take."""

    loss: float = 0.0
    delay_s: float = 0.0


WELL: Final = State()
CUT: Final = State(loss=1.0)


class Paths:
    """The states of all paths."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._states: dict[Path, State] = {}

    def set(self, path: Path, state: State) -> None:
        """Change a path."""
        if state == WELL:
            self._states.pop(path, None)
        else:
            self._states[path] = state

    def delay(self, path: Path) -> float | None:
        """Decide about one frame: return how long it takes, or None if it is lost."""
        state = self._states.get(path)
        if state is None:
            return 0.0
        if state.loss and self._random.random() < state.loss:
            return None
        return state.delay_s


def mac_of(number: int) -> bytes:
    """Return the hardware address of a machine."""
    return bytes((2, 0, 0, 0, number >> 8, number & 255))
