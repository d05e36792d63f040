"""What operators are shown of a cluster: its servers, its instances, and which of them this process is.

The instances are asked for in the background, at most once in `LIST_S`, so the answer is about as old as that;
`Overview.fresh` asks first. While the server is away, the last answer counts. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed

from pyryrelay.cluster.directory.roster import Row, State
from pyryrelay.cluster.directory.shard import LEASE_S
from pyryrelay.cluster.instance import Instance
from pyryrelay.cluster.operating.problems import problems

if TYPE_CHECKING:
    from pyryrelay.cluster.members import Members
    from pyryrelay.cluster.outages import Outages
    from pyryrelay.cluster.redis.client import RedisClient
    from pyryrelay.cluster.shards import Shards
    from pyryrelay.cluster.splice.links import Link

__all__ = ["LIST_S", "Overview", "Shared", "instance_row"]

LIST_S: Final = 2.0
LINK_S: Final = 600.0
"""How long an attempt to reach an instance is of interest."""


class Shared(Protocol):
    """What this relay shares: a `pyryrelay.cluster.membership.Membership`."""

    @property
    def shards(self) -> Shards:
        """The servers."""

    @property
    def members(self) -> Members:
        """Who is in the cluster."""

    @property
    def outages(self) -> Outages:
        """Since when servers are away."""


def instance_row(row: Row, link: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return one instance as an object; ``link`` says why it cannot be reached from here."""
    listed, gone_s = row.listed, max(0.0, -row.listed.left_s)
    # A lease that was deleted in order ended just then.
    seen_s = gone_s if listed.has_left else max(0.0, LEASE_S - listed.left_s)
    return {
        "address": listed.member.address,
        "boot": listed.member.boot,
        "state": row.state.value,
        "lease_s": round(listed.left_s, 3),
        "renewed_s": round(seen_s, 3),
        "gone_s": None if row.state is State.UP else round(gone_s, 3),
        "proven": listed.is_genuine,
        "link": link,
        **listed.load._asdict(),
    }


class Overview:
    """See the module's docstring. ``instance`` is None if this relay shares its limits alone."""

    def __init__(self, name: str, shared: Shared, instance: Instance | None, now: Callable[[], float]) -> None:
        self._name = name
        self._shared = shared
        self._instance = instance
        self._now = now
        self._asked_at: float | None = None

    def object(self, *, with_instances: bool = True) -> Mapping[str, Any]:
        """Return all of it; ``instances`` is None until they are known, and if they are not wanted."""
        shared, instance = self._shared, self._instance
        found: dict[str, Any] = {
            "name": self._name,
            "members": shared.members.count,
            "is_secret_shared": shared.members.is_secret_shared,
            "servers": [self._server(client) for client in shared.shards.clients],
            "here": [],
            "lease_age_s": None,
            "on_outage": "local",
            "instances": None,
            "listed_s": None,
        }
        if instance is not None and instance.has_begun:
            found |= self._of_instance(instance, with_instances=with_instances)
        return found

    def summary(self) -> Mapping[str, Any]:
        """Return the cluster in short: its name, the number of its members, and what is wrong with it."""
        sight = self.object()
        return {"name": sight["name"], "members": sight["members"], "problems": problems(sight)}

    def fresh(self) -> Deferred[Mapping[str, Any]]:
        """Ask for the instances, and return all of it. Never fails: while the server is away, the last list counts."""
        instance = self._instance
        if instance is None or not instance.has_begun:
            return succeed(self.object())
        self._asked_at = self._now()
        return instance.roll_call.ask().addCallback(lambda _: self.object())

    def _server(self, client: RedisClient) -> dict[str, Any]:
        now, is_up = self._now(), not client.problem
        sentinels = client.sentinels.all if client.sentinels is not None else ()
        return {
            "name": client.name,
            "address": client.place,
            "problem": client.problem,
            "away_s": round(self._shared.outages.away_s(client.name), 1),
            "used_s": round(now - client.used_since, 1) if is_up else None,
            "sentinels": [
                {
                    "name": sentinel.name,
                    "problem": sentinel.problem,
                    "away_s": round(now - sentinel.since, 1) if sentinel.problem else 0.0,
                    "primary": sentinel.primary,
                }
                for sentinel in sentinels
            ],
        }

    def _of_instance(self, instance: Instance, *, with_instances: bool) -> dict[str, Any]:
        age_s, now = instance.directory.lease_age_s, self._now()
        if with_instances:
            self._list(instance)
        roster, links = instance.roll_call.roster, instance.splicing.links
        is_known = with_instances and roster.heard_at is not None
        # As they were then: while the server is away, nobody renews a lease, and nobody is gone for that.
        rows = [
            instance_row(row, self._link(links.of(row.listed.member.address)))
            for row in roster.rows(roster.heard_at if is_known and roster.heard_at is not None else now)
        ]
        return {
            "here": [instance.directory.member.address],
            "lease_age_s": round(age_s, 1) if isfinite(age_s) else None,
            "on_outage": "refuse" if instance.terms.refuses_on_outage else "local",
            "instances": rows if is_known else None,
            "listed_s": None if roster.heard_at is None or not is_known else round(now - roster.heard_at, 1),
        }

    def _link(self, link: Link | None) -> dict[str, Any] | None:
        now = self._now()
        if link is None or now - link.last > LINK_S:
            return None
        since_s, last_s = round(now - link.since, 1), round(now - link.last, 1)
        return {"problem": link.problem, "since_s": since_s, "last_s": last_s, "failures": link.failures}

    def _list(self, instance: Instance) -> None:
        """Ask who is there, unless that has just been done."""
        now = self._now()
        if self._asked_at is None or now - self._asked_at >= LIST_S:
            self._asked_at = now
            instance.roll_call.ask()
