"""How fast one connection may send: any number of named quotas, such as frames, bytes and pings.

What was received cannot be refused any more, so it is charged after the fact: the buckets go into debt, and the answer
is how long not to read from the sender until the debt is paid. That alone enforces the quotas. A sender that is back in
debt as soon as it is read from again is in continuous excess, and after the policy's ``excess_timeout_s`` of that it is
to be closed (1008). A sender that stays out of debt for `PAUSE_FORGETS_S` is forgiven.

The names are the caller's: a protocol that counts messages or subscriptions names them in its policies and throttles.

Invariant: of what a sender is charged for while it is not in debt, no window sees more than the burst, what drips in
meanwhile, and one chunk.

Times are seconds on one monotonic clock, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from pyryrelay.guard.errors import LimitError
from pyryrelay.guard.rate.gcra import RESOLUTION_S
from pyryrelay.guard.rate.quota import Quota

__all__ = ["EXCESS_S", "PAUSE_FORGETS_S", "Throttle", "ThrottlePolicy"]

EXCESS_S: Final = 300.0
"""How long a sender may be in continuous excess, unless its policy says otherwise."""

PAUSE_FORGETS_S: Final = 1.0
"""Excess that begins later than this after the last debt was paid is a new one."""

_Rate = tuple[int, float, float]
"""The place of an amount, the time in which one token of its quota drips in, and the time of the whole burst."""


@dataclass(frozen=True, slots=True, init=False)
class ThrottlePolicy:
    """Named quotas of every connection of one kind: ``ThrottlePolicy(frames=Quota.parse("10/s"), bytes=None)``.

    None turns a quota off, as if it were not named. ``quotas`` has the others, sorted by name. A sender may be in
    continuous excess for ``excess_timeout_s``; None is unlimited.
    """

    quotas: tuple[tuple[str, Quota], ...]
    excess_timeout_s: float | None
    _rates: dict[tuple[str, ...], tuple[_Rate, ...]] = field(repr=False, compare=False)

    def __init__(self, *, excess_timeout_s: float | None = EXCESS_S, **quotas: Quota | None) -> None:
        """Take any names, in any order."""
        given = tuple((name, quota) for name, quota in sorted(quotas.items()) if quota is not None)
        object.__setattr__(self, "quotas", given)
        object.__setattr__(self, "excess_timeout_s", excess_timeout_s)
        object.__setattr__(self, "_rates", {})

    def __bool__(self) -> bool:
        """Tell whether there is anything to enforce."""
        return bool(self.quotas)

    def quota(self, name: str) -> Quota | None:
        """Return the quota of a name; None if it is off."""
        return dict(self.quotas).get(name)

    def rates(self, names: tuple[str, ...]) -> tuple[_Rate, ...]:
        """Return what `Throttle` needs of each quota, by the place of its name in ``names``.

        Raises `LimitError` for a quota whose name is missing there: it would never be enforced.
        """
        # Worked out once for all connections that share the policy.
        found = self._rates.get(names)
        if found is None:
            for name, quota in self.quotas:
                if name not in names:
                    raise LimitError(f"{name!r} {str(quota)!r} counts nothing here: use {', '.join(names)}")
            found = self._rates[names] = tuple(
                (names.index(name), quota.emission_interval_s, quota.full_after_s) for name, quota in self.quotas
            )
        return found


class Throttle:
    """The state of one connection under a policy, which may be replaced at any time.

    ``names`` says what the amounts of `charge` are, in their order. Raises `LimitError` if the policy has a quota of
    another name.
    """

    __slots__ = ("_excess_since_s", "_names", "_paid_at_s", "_policy", "_rates", "_tats")

    def __init__(self, policy: ThrottlePolicy, names: tuple[str, ...]) -> None:
        """Start with full buckets."""
        self._policy = policy
        self._names = names
        self._rates = policy.rates(names)
        self._tats = [0.0] * len(names)
        self._forgive()

    def _forgive(self) -> None:
        self._excess_since_s = inf
        self._paid_at_s = -inf

    @property
    def policy(self) -> ThrottlePolicy:
        """The quotas in force. Replacing them gives a full bucket for each that is new, and forgets all excess.

        A quota that is the same keeps its bucket, so what is owed under it is asked for at the next charge.
        """
        return self._policy

    @policy.setter
    def policy(self, policy: ThrottlePolicy) -> None:
        before = self._policy
        if policy == before:
            return
        self._rates = policy.rates(self._names)
        self._policy = policy
        for place, name in enumerate(self._names):
            # A tat is seconds of one quota: under another it may be a debt that no sender has made.
            if policy.quota(name) != before.quota(name):
                self._tats[place] = 0.0
        self._forgive()

    def charge(self, amounts: Sequence[int], now: float) -> float:
        """Pay for what was received; return how many seconds not to read from the sender, 0 for going on."""
        tats = self._tats
        debt_s = RESOLUTION_S
        # `gcra.charge` without the call and its tuple, which would take half the time of each chunk.
        for place, interval_s, tolerance_s in self._rates:
            tat = tats[place]
            if tat < now:
                tat = now
            tat += amounts[place] * interval_s
            tats[place] = tat
            owed_s = tat - now - tolerance_s
            if owed_s > debt_s:
                debt_s = owed_s
        return self._judge(debt_s if debt_s > RESOLUTION_S else 0.0, now)

    def _judge(self, debt_s: float, now: float) -> float:
        """Note whether the sender is in excess, and since when; return its debt.

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
    def times_out_at_s(self) -> float:
        """When the excess will have lasted for too long; `math.inf` if the debt is paid by then."""
        timeout_s = self._policy.excess_timeout_s
        if timeout_s is None:
            return inf
        times_out_at_s = self._excess_since_s + timeout_s
        return times_out_at_s if times_out_at_s < self._paid_at_s else inf
