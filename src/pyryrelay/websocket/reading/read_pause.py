"""PURE: whether to read from a peer. Each connection has an instance.

Four things stop reading: the application pauses the peer, it needs time to take the last messages, the peer is in debt
with its quotas (see `pyryrelay.guard.rate.throttle`), or what it sent is too much for one turn and others come first.
Invariant: the peer is read from if none holds, and the end of one is not the end of another.

Times are seconds of a monotonic clock, `math.inf` is never; sizes are bytes.
"""

from __future__ import annotations

from math import inf
from typing import Final

from pyryrelay.guard import Throttle, ThrottlePolicy

COUNTED: Final = ("frames", "bytes", "pings")
"""What the quotas of a connection count, in the order in which they are charged."""


class ReadPause:
    """See the module's text.

    The caller sets the reasons not to read: ``paused`` by the application, ``pending`` until it has taken the last
    messages, ``put_off`` until it is the peer's turn. It also counts what was received since the last `charge`: in
    ``frames``, pings included, in ``pings``, and in ``below_bytes`` what the transport needed beside the payload.
    ``is_metered`` is False if there is no quota to charge.
    """

    __slots__ = (
        "_paid_at_s",
        "_throttle",
        "below_bytes",
        "frames",
        "is_metered",
        "paused",
        "pending",
        "pings",
        "put_off",
    )

    def __init__(self, policy: ThrottlePolicy) -> None:
        """Start open, and with every quota full."""
        self.paused = self.pending = self.put_off = False
        self._throttle = Throttle(policy, COUNTED)
        self.meter(policy)

    def meter(self, policy: ThrottlePolicy) -> None:
        """Enforce these quotas from now on. A new quota starts full, and a debt is forgotten."""
        self._throttle.policy = policy
        self._paid_at_s = -inf
        self.frames = self.pings = self.below_bytes = 0
        self.is_metered = bool(policy)

    @property
    def is_open(self) -> bool:
        """Whether to read from the peer."""
        return not (self.put_off or self.is_withheld)

    @property
    def is_withheld(self) -> bool:
        """Whether reading waits for more than a turn: for the application, or until a debt is paid."""
        return self.paused or self.pending or self._paid_at_s != -inf

    def charge(self, size: int, now: float) -> bool:
        """Charge a chunk of ``size`` bytes and what was counted in it. Returns True if the peer is in debt now."""
        wait_s = self._throttle.charge((self.frames, size + self.below_bytes, self.pings), now)
        self.frames = self.pings = self.below_bytes = 0
        if not wait_s:
            return False
        self._paid_at_s = now + wait_s
        return True

    def debt_s(self, now: float) -> float:
        """Return how long it takes until the debt is paid; 0 without a debt."""
        return 0.0 if self._paid_at_s == -inf else max(0.0, self._paid_at_s - now)

    @property
    def due_s(self) -> float:
        """When to call `check` next."""
        return inf if self._paid_at_s == -inf else min(self._paid_at_s, self._throttle.times_out_at_s)

    def check(self, now: float) -> bool:
        """End a debt that is paid by now. Returns False if the peer has exceeded its quotas for too long."""
        if now >= self.due_s:
            if now >= self._throttle.times_out_at_s:
                return False
            self._paid_at_s = -inf
        return True
