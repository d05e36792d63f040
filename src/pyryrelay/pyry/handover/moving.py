"""The side that peers leave: groups of a binary and its phones are closed with 1001, each in one go.

The process that has taken over asks three things, as text:

* ``held``: the answer is a JSON array of the server-ids here, and of those that were here when the moving began: the
  question may come behind the first groups that have left, whose phones may be faster than their binaries. If this
  process has taken over itself a moment ago, it also names those whose binaries have not come yet.
* ``move ID``: a phone of that server-id has arrived there. Its group moves now.
* ``claim ID``: a binary has arrived there that claims that server-id. It is a challenger here, as if it had come to
  this process. The answer is ``held`` if the incumbent is alive, and else ``free``, and the group has moved.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from math import ceil
from typing import Final

from twisted.internet.defer import Deferred

from pyryrelay.protocol import Cancellable
from pyryrelay.pyry.registry import CLOSES, Claimed, Close, CloseCause, Effect, Registry, State
from pyryrelay.pyry.relay import Admit, Opening, Relay

__all__ = ["FREE", "HELD", "Moving", "held", "send_away"]

STEP_S: Final = 0.1
HELD: Final = b"held"
FREE: Final = b"free"


class Moving:
    """Moves the groups that the other process asks for, and all from `begin` to `cancel`.

    ``done`` fires when it has begun and no group is left, whether they were moved or went by themselves. ``expected``
    are server-ids that the process before this one had, and whose binaries have not come here.
    """

    def __init__(self, relay: Relay, expected: Collection[str] = ()) -> None:
        self._relay = relay
        self._left = relay.registry.server_ids()
        self._began_with = frozenset({*self._left, *expected})
        self._timer: Cancellable | None = None
        self._interval_s = STEP_S
        self._each_step = 0
        self._has_begun = False
        self.done = Deferred[None]()

    def begin(self, over_s: float) -> Deferred[None]:
        """Move all groups in even steps over ``over_s``; 0 moves all at once. Return ``done``."""
        self.cancel()
        self._left = self._relay.registry.server_ids()
        self._began_with |= frozenset(self._left)
        count = max(1, len(self._left))
        self._interval_s = max(STEP_S, over_s / count)
        self._each_step = ceil(count * self._interval_s / over_s) if over_s > 0 else count
        self._has_begun = True
        self._step()
        self.vacated()
        return self.done

    def _step(self) -> None:
        self._timer = None
        moved = 0
        while self._left and moved < self._each_step:
            moved += self.move(self._left.pop())
        if self._left:
            self._timer = self._relay.call_later(self._interval_s, self._step)

    def vacated(self) -> None:
        """Be done if that was the last group. See `relay.Handover`."""
        if self._has_begun and not self.done.called and not len(self._relay.registry):
            self.cancel()
            self.done.callback(None)

    def cancel(self) -> None:
        """Move no more groups by itself."""
        self._left.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def move(self, server_id: str) -> bool:
        """Close a binary and its phones in one go; return whether there was one."""
        effects = self._relay.registry.move(server_id, self._relay.now())
        self._relay.apply(effects)
        return any(isinstance(effect, Close) for effect in effects)

    def opened(self, session: Opening, admit: Admit) -> Opening | None:
        """Send away a peer that was accepted before, unless its group is still here. See `relay.Handover`."""
        if self._relay.registry.state(session.server_id) is not State.VACANT:
            return None
        send_away(session)
        return session

    def answer(self, question: bytes) -> bytes | Deferred[bytes]:
        """See the module's docstring; the answer to anything else is empty."""
        verb, _, server_id = question.decode().partition(" ")
        match verb:
            case "held":
                return held(self._relay.registry, self._began_with)
            case "move":
                self.move(server_id)
            case "claim":
                return self._claim(server_id)
        return b""

    def _claim(self, server_id: str) -> bytes | Deferred[bytes]:
        if self._relay.registry.state(server_id) in (State.HELD, State.PROBED):
            return _DistantClaim(self, self._relay, server_id).answer
        self.move(server_id)
        return FREE


class _DistantClaim:
    """A binary that is connected to the other process, as the registry's challenger."""

    def __init__(self, moving: Moving, relay: Relay, server_id: str) -> None:
        self._moving = moving
        self._relay = relay
        self._server_id = server_id
        self.answer = Deferred[bytes]()
        self._id = relay.add(self)
        relay.apply(relay.registry.claim(server_id, self._id, relay.now()))

    def apply(self, effect: Effect) -> None:
        """See `pyryrelay.pyry.relay.RegistrySession`."""
        match effect:
            case Claimed():
                # In a later turn, because other effects of this change are still to be carried out.
                self._relay.call_later(0, self._move)
            case Close(cause=cause):
                self._end(HELD if cause is CloseCause.CONFLICT else FREE)

    def _move(self) -> None:
        self._moving.move(self._server_id)

    def _end(self, answer: bytes) -> None:
        self._relay.forget(self._id)
        self.answer.callback(answer)


def held(registry: Registry, moved: Collection[str] = ()) -> bytes:
    """Return the answer to ``held``, with those that have ``moved``, perhaps."""
    return json.dumps(sorted({*registry.server_ids(), *moved})).encode()


def send_away(session: Opening) -> None:
    """Close a peer that has not been admitted, so that it connects again, to the other process."""
    session.apply(Close(session.id, *CLOSES[CloseCause.MOVED], CloseCause.MOVED))
