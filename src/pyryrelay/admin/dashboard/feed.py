"""What the dashboard is sent: a sample each second, and the refusals of that second. Times are seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol, TypeAlias

from pyryrelay.admin.dashboard.samples import difference
from pyryrelay.admin.status import Status
from pyryrelay.observe.log import EventLog
from pyryrelay.observe.refusals import MAX_RECENT, RecentRefusal, Refusals
from pyryrelay.observe.sampling import Snapshot

__all__ = ["MAX_NEW_REFUSALS", "ClusterSight", "Feed", "RecentRefusals", "RelayFeed", "Send"]

MAX_NEW_REFUSALS: Final = 50
"""How many of the refusals of one second the dashboard is sent."""


ClusterSight: TypeAlias = Callable[[bool], Mapping[str, Any]]
"""Returns what is known of the cluster; with True also of its other instances, which are asked for then."""


class Send(Protocol):
    """Sends to all pages: `pyryrelay.admin.dashboard.stream.Stream.add`."""

    def __call__(
        self,
        sample: Mapping[str, Any],
        refusals: Sequence[Mapping[str, Any]] = (),
        workers: Sequence[Mapping[str, Any]] = (),
        cluster: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a sample, new refusals, the state of each worker if there are several, and that of a cluster."""


class Feed(Protocol):
    """Where samples come from."""

    @property
    def address_form(self) -> str:
        """The form of client addresses: the value of ``--log-client-address``."""

    def uptime_s(self) -> float:
        """Return the seconds since the start."""

    def take(self, send: Send, *, is_watched: bool) -> None:
        """Take a sample, and ``send`` it now or soon, with the refusals since the last one if a page is open."""

    def recent(self) -> Sequence[Mapping[str, Any]]:
        """Return the last refusals, the newest last."""


class RecentRefusals:
    """The last refusals of this process, as the dashboard shows them: with no more of an address than the log."""

    def __init__(self, refusals: Refusals, log: EventLog, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._refusals = refusals
        self._event_log = log
        self._now = now
        self._wall = wall
        self._seen = 0

    def new(self, *, is_watched: bool = True) -> list[dict[str, Any]]:
        """Return the refusals since the last call, the newest if they are many; none unless they are watched."""
        new, self._seen = self._refusals.total - self._seen, self._refusals.total
        return self.last(min(new, MAX_NEW_REFUSALS)) if new and is_watched else []

    def last(self, most: int = MAX_RECENT) -> list[dict[str, Any]]:
        """Return the last ones."""
        recent, offset_s = self._refusals.recent, self._wall() - self._now()
        skipped = max(0, len(recent) - most)
        return [self._as_object(refusal, offset_s) for refusal in islice(recent, skipped, None)]

    def _as_object(self, refusal: RecentRefusal, offset_s: float) -> dict[str, Any]:
        return {
            "at": round(refusal.at_s + offset_s, 3),
            "client": self._event_log.address(refusal.client),
            "status": refusal.status,
            "reason": str(refusal.reason),
            "route": refusal.route,
        }


class RelayFeed:
    """The samples of this process. ``now`` is the monotonic clock, and ``wall`` the other one.

    ``cluster`` shows the cluster that it is in, if any.
    """

    def __init__(
        self,
        status: Status,
        refusals: Refusals,
        log: EventLog,
        now: Callable[[], float],
        wall: Callable[[], float],
        cluster: ClusterSight | None = None,
    ) -> None:
        self.refusals = RecentRefusals(refusals, log, now, wall)
        self.uptime_s = status.uptime_s
        self._status = status
        self._event_log = log
        self._wall = wall
        self._cluster = cluster
        self._before: Snapshot | None = None

    @property
    def address_form(self) -> str:
        """See `Feed`."""
        return self._event_log.address_form

    def take(self, send: Send, *, is_watched: bool) -> None:
        """See `Feed`."""
        sample = self._status.sampler.take()
        state = "draining" if self._status.is_draining() else "running"
        found = difference(self._before or sample, sample, self._wall(), state)
        self._before = sample
        cluster = self._cluster(True) if self._cluster is not None and is_watched else None
        send(found, self.refusals.new(is_watched=is_watched), cluster=cluster)

    def recent(self) -> Sequence[Mapping[str, Any]]:
        """See `Feed`."""
        return self.refusals.last()
