"""Where an upgrade is served in a cluster: an implementation of `pyryrelay.http.placement.Placement`.

Some routes claim the key that they name, and the peers of the others are looked for. What is held here is served here,
as long as this instance's lease lasts. While the directory is away, ``--cluster-on-outage`` decides: with ``local``
claims are served here, and asserted later; with ``refuse`` they are answered 503. Routes that are known are used either
way. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from pyryrelay.cluster.directory.directory import Answer, Directory, NoOwner
from pyryrelay.cluster.directory.members import Member
from pyryrelay.cluster.directory.routes import Routes
from pyryrelay.cluster.directory.shard import Holder
from pyryrelay.http.placement import HERE, UNAVAILABLE, Place

__all__ = ["DirectoryPlacement"]


class DirectoryPlacement:
    """See the module's docstring. ``way_to`` returns how a connection with a key gets to an instance."""

    def __init__(
        self,
        directory: Directory,
        holder: Holder,
        claims: Callable[[str], bool],
        way_to: Callable[[Member, str], Place],
        now: Callable[[], float],
        *,
        refuses_on_outage: bool,
    ) -> None:
        self.routes = Routes()
        self._directory = directory
        self._holder = holder
        self._claims = claims
        self._way_to = way_to
        self._now = now
        self._refuses_on_outage = refuses_on_outage

    def place(self, route: str, key: str) -> Place | Deferred[Place]:
        """See `pyryrelay.http.placement.Placement`."""
        if self._holder.holds(key):
            return HERE if self._directory.may_serve(key) else self._after_assertion(route, key)
        return self._elsewhere(route, key)

    def _elsewhere(self, route: str, key: str) -> Place | Deferred[Place]:
        is_claim = self._claims(route)
        if not is_claim and (member := self.routes.fresh(key, self._now())) is not None:
            return self._way_to(member, key)
        asked = self._directory.claim(key) if is_claim else self._directory.look(key)
        return asked.addCallback(self._understood, key, is_claim)

    @inlineCallbacks
    def _after_assertion(self, route: str, key: str) -> Generator[Deferred[Any], Any, Place]:
        """Serve what was held here when the lease was over, unless another instance has it now."""
        yield self._directory.recover(key)
        if self._holder.holds(key):
            return HERE
        place = self._elsewhere(route, key)
        if isinstance(place, Deferred):
            place = yield place
        return place

    def _understood(self, answer: Answer, key: str, is_claim: bool) -> Place:
        if isinstance(answer, Member):
            self.routes.note(key, answer, self._now())
            return self._way_to(answer, key)
        if answer in (NoOwner.HERE, NoOwner.NOBODY) or self._holder.holds(key):
            return HERE
        if answer is NoOwner.DOWN:
            return self._without_directory(key, is_claim)
        return UNAVAILABLE

    def _without_directory(self, key: str, is_claim: bool) -> Place:
        if not is_claim and (member := self.routes.last(key)) is not None:
            return self._way_to(member, key)
        return UNAVAILABLE if self._refuses_on_outage else HERE
