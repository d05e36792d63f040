"""The instances of a cluster as this process knows them: those that are there, and those that are gone. PURE.

Whoever is gone stays known for a while, also if Redis has lost all its data meanwhile. `Roster.hear` returns what has
changed. An instance is told to be gone only `GRACE_S` after its lease was over, and only if the server has been in use
for `SETTLED_S`: after an outage, all others need a moment, too. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from pyryrelay.cluster.directory.members import Listed

__all__ = [
    "FORGET_LEFT_S",
    "FORGET_OVER_S",
    "GRACE_S",
    "MOST",
    "SETTLED_S",
    "Change",
    "Kind",
    "Roster",
    "Row",
    "State",
    "state_of",
]

GRACE_S: Final = 3.0
SETTLED_S: Final = 5.0
FORGET_LEFT_S: Final = 3_600.0
"""How long an instance that has left in order is known."""
FORGET_OVER_S: Final = 86_400.0
"""How long one whose lease has ended otherwise is known."""
MOST: Final = 10_000
"""How many are known at most."""


class State(StrEnum):
    """Whether an instance is there."""

    UP = "up"
    LEFT = "left"
    """It has left in order."""
    OVER = "over"
    """It does not renew its lease: it has died or hangs, or cannot reach the server."""


class Kind(StrEnum):
    """What has become of an instance."""

    JOINED = "joined"
    RESTARTED = "restarted"
    LEFT = "left"
    GONE = "gone"
    BACK = "back"


class Change(NamedTuple):
    """Something that has become of an instance; ``seconds`` is how long it was gone, or has been gone for."""

    kind: Kind
    listed: Listed
    seconds: float = 0.0


class Row(NamedTuple):
    """An instance as it is now: its lease lasts for ``listed.left_s`` seconds, or has been over for as long."""

    listed: Listed
    state: State


@dataclass(slots=True)
class _Known:
    listed: Listed
    at: float
    is_told: bool
    """Whether it is known to be gone."""

    def now(self, now: float) -> Listed:
        """Return it with the time that its lease lasts from now on."""
        return self.listed._replace(left_s=self.listed.left_s - (now - self.at))


def state_of(listed: Listed) -> State:
    """Return the state of an instance."""
    if listed.left_s > 0:
        return State.UP
    return State.LEFT if listed.has_left else State.OVER


class Roster:
    """See the module's docstring. ``me`` is the name of this instance, of which nothing is told."""

    def __init__(self, me: str) -> None:
        self.heard_at: float | None = None
        """When instances were listed last."""
        self._me = me
        self._known: dict[str, _Known] = {}
        self._forged: list[Listed] = []

    def rows(self, now: float) -> list[Row]:
        """Return all that are known, by name; those whose address is not proven are those that were listed last."""
        heard_at = now if self.heard_at is None else self.heard_at
        forged = [listed._replace(left_s=listed.left_s - (now - heard_at)) for listed in self._forged]
        found = sorted([*(known.now(now) for known in self._known.values()), *forged])
        return [Row(listed, state_of(listed)) for listed in found]

    def hear(self, all_listed: Sequence[Listed], now: float, used_s: float) -> list[Change]:
        """Take in who is listed now. The server has been in use for ``used_s``."""
        is_first, self.heard_at = self.heard_at is None, now
        changes = []
        for listed in all_listed:
            if listed.is_genuine:
                change = self._note(listed, now, is_first=is_first)
                changes += [change] if change is not None else []
        self._forged = [listed for listed in all_listed if not listed.is_genuine][:MOST]
        if used_s >= SETTLED_S:
            changes += self._gone(now)
        self._forget(now)
        return [change for change in changes if change.listed.member.name != self._me]

    def _note(self, listed: Listed, now: float, *, is_first: bool) -> Change | None:
        name, state = listed.member.name, state_of(listed)
        known = self._known.get(name)
        if known is None:
            self._known[name] = _Known(listed, now, is_told=state is not State.UP)
            return Change(Kind.JOINED, listed) if state is State.UP and not is_first else None
        before = known.now(now)
        known.listed, known.at = listed, now
        if state is State.UP:
            was_told, known.is_told = known.is_told, False
            if was_told:
                return Change(Kind.BACK, listed, -before.left_s)
            is_other = before.member.boot != listed.member.boot
            return Change(Kind.RESTARTED, listed) if is_other else None
        if state is State.LEFT and not known.is_told:
            known.is_told = True
            return Change(Kind.LEFT, listed, -listed.left_s)
        return None

    def _gone(self, now: float) -> list[Change]:
        """Return those that are gone without having left; they may not be listed any more."""
        found = []
        for known in self._known.values():
            listed = known.now(now)
            if not known.is_told and listed.left_s <= -GRACE_S:
                known.is_told = True
                found.append(Change(Kind.GONE, listed, -listed.left_s))
        return found

    def _forget(self, now: float) -> None:
        """Forget who has been gone for long, and those first if there are too many."""
        for name, known in list(self._known.items()):
            listed = known.now(now)
            if -listed.left_s > (FORGET_LEFT_S if listed.has_left else FORGET_OVER_S):
                del self._known[name]
        if len(self._known) > MOST:
            longest = sorted(self._known, key=lambda name: self._known[name].now(now).left_s)
            for name in longest[: len(self._known) - MOST]:
                del self._known[name]
