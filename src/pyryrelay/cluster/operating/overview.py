"""What the dashboard is told of a cluster: its servers, its instances, and which of them this process is.

The instances are asked for in the background, at most once in `LIST_S`, so the answer is about as old as that. While
the server is away, it is the last one that came. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.python.failure import Failure

from pyryrelay.cluster.directory.members import Listed
from pyryrelay.cluster.directory.shard import LEASE_S
from pyryrelay.cluster.instance import Instance
from pyryrelay.cluster.redis.interface import RedisError

if TYPE_CHECKING:
    from pyryrelay.cluster.members import Members
    from pyryrelay.cluster.outages import Outages
    from pyryrelay.cluster.shards import Shards

__all__ = ["LIST_S", "Overview", "Shared", "instance_row"]

LIST_S: Final = 2.0


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


def instance_row(listed: Listed) -> dict[str, Any]:
    """Return one instance as an object."""
    return {
        "address": listed.member.address,
        "boot": listed.member.boot,
        "lease_s": round(listed.left_s, 3),
        "renewed_s": round(max(0.0, LEASE_S - listed.left_s), 3),
        "proven": listed.is_genuine,
        **listed.load._asdict(),
    }


class Overview:
    """See the module's docstring. ``instance`` is None if this relay shares its limits alone."""

    def __init__(self, name: str, shared: Shared, instance: Instance | None, now: Callable[[], float]) -> None:
        self._name = name
        self._shared = shared
        self._instance = instance
        self._now = now
        self._rows: list[dict[str, Any]] | None = None
        self._listed_at = 0.0
        self._asked_at: float | None = None

    def object(self, *, with_instances: bool = True) -> Mapping[str, Any]:
        """Return all of it; ``instances`` is None until they are known, and if they are not wanted."""
        shared, instance = self._shared, self._instance
        found: dict[str, Any] = {
            "name": self._name,
            "members": shared.members.count,
            "is_secret_shared": shared.members.is_secret_shared,
            "servers": [
                {
                    "name": client.name,
                    "problem": client.problem,
                    "away_s": round(shared.outages.away_s(client.name), 1),
                }
                for client in shared.shards.clients
            ],
            "here": [],
            "lease_age_s": None,
            "on_outage": "local",
            "instances": None,
            "listed_s": None,
        }
        if instance is not None and instance.has_begun:
            found |= self._of_instance(instance, with_instances=with_instances)
        return found

    def _of_instance(self, instance: Instance, *, with_instances: bool) -> dict[str, Any]:
        age_s = instance.directory.lease_age_s
        if with_instances:
            self._list(instance)
        is_known = with_instances and self._rows is not None
        return {
            "here": [instance.directory.member.address],
            "lease_age_s": round(age_s, 1) if isfinite(age_s) else None,
            "on_outage": "refuse" if instance.terms.refuses_on_outage else "local",
            "instances": self._rows if is_known else None,
            "listed_s": round(self._now() - self._listed_at, 1) if is_known else None,
        }

    def _list(self, instance: Instance) -> None:
        """Ask who is there, unless that has just been done."""
        now = self._now()
        if self._asked_at is None or now - self._asked_at >= LIST_S:
            self._asked_at = now
            instance.directory.members().addCallbacks(self._listed, _away)

    def _listed(self, listed: Sequence[Listed]) -> None:
        self._rows = [instance_row(each) for each in sorted(listed)]
        self._listed_at = self._now()


def _away(failure: Failure) -> None:
    """Go on with what is known: ``servers`` says that one is away."""
    failure.trap(RedisError)
