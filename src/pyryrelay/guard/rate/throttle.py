"""How fast one connection may send: frames, bytes and pings, each under a quota of its own.

What was received cannot be refused any more, so a chunk is charged after the fact: the buckets go into debt, and the
answer is how long not to read from the sender until the debt is paid. That alone enforces the quotas. A sender that is
back in debt as soon as it is read from again is in continuous excess, and after the policy's ``excess_timeout_s`` of
that it is to be closed (1008). A sender that stays out of debt for `PAUSE_FORGETS_S` is forgiven.

Invariant: of what a sender is charged for while it is not in debt, no window sees more than the burst, what drips in
meanwhile, and one chunk.

Times are seconds on one monotonic clock, sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

from pyryrelay.guard.rate.gcra import charge

if TYPE_CHECKING:
    from pyryrelay.guard.rate.quota import ByteQuota, Quota

__all__ = ["EXCESS_S", "PAUSE_FORGETS_S", "Throttle", "ThrottlePolicy"]

EXCESS_S: Final = 300.0
"""How long a sender may be in continuous excess, unless its policy says otherwise."""

PAUSE_FORGETS_S: Final = 1.0
"""Excess that begins later than this after the last debt was paid is a new one."""


@dataclass(frozen=True, slots=True)
class ThrottlePolicy:
    """The quotas of every connection of one kind; None turns one off.

    A sender may be in continuous excess for ``excess_timeout_s``; None is for ever.
    """

    frames: Quota | None = None
    bytes: ByteQuota | None = None
    pings: Quota | None = None
    excess_timeout_s: float | None = EXCESS_S

    def __bool__(self) -> bool:
        """Whether there is anything to enforce."""
        return not (self.frames is None and self.bytes is None and self.pings is None)


class Throttle:
    """The state of one connection under a policy, which may be replaced at any time."""

    __slots__ = ("_bytes_tat", "_excess_since_s", "_frames_tat", "_paid_at_s", "_pings_tat", "_policy")

    def __init__(self, policy: ThrottlePolicy) -> None:
        """Start with full buckets."""
        self._policy = policy
        self._frames_tat = self._bytes_tat = self._pings_tat = 0.0
        self._forgive()

    def _forgive(self) -> None:
        self._excess_since_s = inf
        self._paid_at_s = -inf

    @property
    def policy(self) -> ThrottlePolicy:
        """The quotas in force. To replace them gives a full bucket for each that is new, and forgets all excess.

        A quota that is the same keeps its bucket, so what is owed under it is asked for at the next charge.
        """
        return self._policy

    @policy.setter
    def policy(self, policy: ThrottlePolicy) -> None:
        before, self._policy = self._policy, policy
        if policy == before:
            return
        # A tat is seconds of one quota: under another it may be a debt that nobody has made.
        if policy.frames != before.frames:
            self._frames_tat = 0.0
        if policy.bytes != before.bytes:
            self._bytes_tat = 0.0
        if policy.pings != before.pings:
            self._pings_tat = 0.0
        self._forgive()

    def charge(self, frames: int, size: int, pings: int, now: float) -> float:
        """Pay for what was received; how many seconds not to read from the sender, 0 for going on."""
        policy = self._policy
        debt_s = 0.0
        if policy.frames is not None:
            self._frames_tat, debt_s = charge(policy.frames, self._frames_tat, now, frames)
        if policy.bytes is not None:
            self._bytes_tat, bytes_debt_s = charge(policy.bytes, self._bytes_tat, now, size)
            debt_s = max(debt_s, bytes_debt_s)
        if policy.pings is not None:
            self._pings_tat, pings_debt_s = charge(policy.pings, self._pings_tat, now, pings)
            debt_s = max(debt_s, pings_debt_s)
        return self._judge(debt_s, now)

    def _judge(self, debt_s: float, now: float) -> float:
        """Note whether the sender is in excess, and since when; its debt.

        A little that is not in excess ends none: it could be sent in between on purpose.
        """
        is_new = now > self._paid_at_s + PAUSE_FORGETS_S
        if not debt_s:
            if is_new:
                self._forgive()
            return 0.0
        if is_new:
            self._excess_since_s = now
        self._paid_at_s = now + debt_s
        return debt_s

    @property
    def hopeless_at_s(self) -> float:
        """When the sender will have been in continuous excess for too long; `math.inf` if its debt is paid by then."""
        timeout_s = self._policy.excess_timeout_s
        if timeout_s is None:
            return inf
        hopeless_at_s = self._excess_since_s + timeout_s
        return hopeless_at_s if hopeless_at_s < self._paid_at_s else inf
