"""The steps of a probe: what was tried, how long it took, what came of it. PURE but for the clock that it is given.

Times are seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pyryrelay.protocol_options import ProbeError

__all__ = ["State", "Step", "Steps"]


class State(StrEnum):
    """What came of a step."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(slots=True)
class Step:
    """One step. ``detail`` is for people; ``fix`` says what to do about a problem or a warning."""

    name: str
    state: State = State.OK
    seconds: float = 0.0
    detail: str = ""
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as an object."""
        return {
            "name": self.name,
            "state": self.state.value,
            "seconds": round(self.seconds, 6),
            "detail": self.detail,
            "fix": self.fix,
        }


@dataclass(slots=True)
class Steps:
    """All steps so far. ``now`` is a clock, and ``done`` is called with each step when it is over."""

    now: Callable[[], float]
    done: Callable[[Step], None]
    taken: list[Step] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Take a step in a ``with`` statement. A `ProbeError` is its problem, and goes on."""
        step = Step(name)
        began = self.now()
        try:
            yield step
        except ProbeError as error:
            step.state, step.detail, step.fix = State.PROBLEM, error.problem, error.fix
            raise
        finally:
            step.seconds = self.now() - began
            self.taken.append(step)
            self.done(step)

    def warn(self, name: str, detail: str, fix: str) -> None:
        """Add a step that took no time, and found something that is not as it should be."""
        step = Step(name, State.WARNING, 0.0, detail, fix)
        self.taken.append(step)
        self.done(step)
