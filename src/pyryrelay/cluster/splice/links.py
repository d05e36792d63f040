"""Whether this process reaches the other instances, by their addresses.

There is a line when one cannot be reached, and when it can again; at most one about the same instance in
`REPEAT_S`. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from twisted.logger import Logger

__all__ = ["MOST", "REPEAT_S", "Link", "Links"]

_log = Logger(namespace="pyryrelay")

REPEAT_S: Final = 60.0
MOST: Final = 1_000
"""How many instances are remembered that could not be reached."""


@dataclass(slots=True)
class Link:
    """An instance that could not be reached: why the last attempt failed, when the first and the last one did."""

    problem: str
    since: float
    last: float
    failures: int = 0
    is_told: bool = False


class Links:
    """See the module's docstring."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failing: OrderedDict[str, Link] = OrderedDict()
        self._told_at: dict[str, float] = {}

    def of(self, address: str) -> Link | None:
        """Return what is known of an instance whose last attempt has failed."""
        return self._failing.get(address)

    def failed(self, address: str, problem: str) -> None:
        """Note that an instance did not answer."""
        now = self._now()
        link = self._failing.get(address)
        if link is None:
            link = self._failing[address] = Link(problem, now, now)
        self._failing.move_to_end(address)
        link.problem, link.last = problem, now
        link.failures += 1
        if not link.is_told and now >= self._told_at.get(address, -inf) + REPEAT_S:
            link.is_told = True
            self._told_at[address] = now
            _log.warn(
                "instance {endpoint} of the cluster cannot be reached: {reason}; connections that belong there are "
                "answered 503",
                endpoint=address,
                reason=problem,
            )
        if len(self._failing) > MOST:
            self._failing.popitem(last=False)
        if len(self._told_at) > MOST:
            self._told_at.clear()

    def worked(self, address: str) -> None:
        """Note that an instance has answered."""
        link = self._failing.pop(address, None)
        if link is not None and link.is_told:
            seconds = round(self._now() - link.since, 1)
            _log.info(
                "instance {endpoint} of the cluster can be reached again, after {seconds} s",
                endpoint=address,
                seconds=seconds,
            )
