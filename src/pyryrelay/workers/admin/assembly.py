"""The admin listener of a supervisor: the parts, connected. Times are seconds of a monotonic clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.web.server import Site

from pyryrelay import __version__
from pyryrelay.admin.actions import RelayActions
from pyryrelay.admin.api import ReloadOutcome, UpgradeOutcome, api_resources
from pyryrelay.admin.listener import AdminListener
from pyryrelay.admin.status import CertificateStatus, limits_of
from pyryrelay.config.derive import trust_policy
from pyryrelay.guard import ClientAddress, Gate, TrustPolicy
from pyryrelay.guard.address.lists import IPAddress
from pyryrelay.mounts import MountedSettings
from pyryrelay.workers.admin.actions import WorkersActions
from pyryrelay.workers.admin.feed import WorkersFeed
from pyryrelay.workers.admin.observed import READ_S, Workers, WorkersView
from pyryrelay.workers.admin.pages import WorkersPages
from pyryrelay.workers.admin.usage import Usage, usage
from pyryrelay.workers.merging.statuses import Own, merge_status

__all__ = ["Relay", "WorkersAdmin"]


@dataclass(frozen=True, slots=True)
class Relay:
    """What the admin listener must know of the supervisor.

    ``settings`` returns those in force, which a reload may change. ``steer`` returns the index of the worker that
    accepts the connections of an address. ``gate`` has the jail of all workers, and ``spread`` tells others what has
    changed in it. ``is_draining`` tells whether the workers were told to end.
    """

    settings: Callable[[], MountedSettings]
    gate: Gate
    spread: Callable[[str | None], None]
    steer: Callable[[IPAddress], int]
    reload: Callable[[], Deferred[ReloadOutcome]]
    upgrade: Callable[[], Deferred[UpgradeOutcome]]
    is_draining: Callable[[], bool]
    wrong_token: Callable[[ClientAddress | None], None]
    collectors: Iterable[Collector] = ()
    certificates: Callable[[], Sequence[CertificateStatus]] = tuple


class WorkersAdmin:
    """See the module's text. Call `sample` every `pyryrelay.observe.sampling.SAMPLE_S`, and `stop` at the end.

    ``now`` is the monotonic clock, ``wall`` the other one.
    """

    def __init__(
        self,
        workers: Workers,
        relay: Relay,
        reactor: Any,
        now: Callable[[], float],
        wall: Callable[[], float] = time.time,
        used: Callable[[], Usage] = usage,
    ) -> None:
        self._relay = relay
        self._reactor = reactor
        self._used = used
        started_at = now()
        self._uptime_s: Callable[[], float] = lambda: now() - started_at
        self.view = WorkersView(workers, reactor, now, relay.is_draining)
        self.pages = WorkersPages(self.view, relay.collectors, self._uptime_s, relay.is_draining)
        feed = WorkersFeed(
            self.view,
            lambda: relay.settings().log_client_address,
            self._uptime_s,
            wall,
            self._state,
            used,
        )
        self.listener = AdminListener(feed, relay.wrong_token, lambda: self.view.panels, now, wall)
        self.sample = self.listener.sample
        self.stop = self.listener.stop
        self._actions = WorkersActions(
            self.view,
            relay.settings,
            self._trust,
            relay.steer,
            jail=self._jailer(now),
            spread=relay.spread,
            status=self.status,
            reload=relay.reload,
            upgrade=relay.upgrade,
        )

    def _trust(self) -> TrustPolicy:
        return trust_policy(self._relay.settings())

    def _jailer(self, now: Callable[[], float]) -> RelayActions:
        """Return the actions on the jail of this process, whose gate admits nobody."""
        relay = self._relay
        return RelayActions(
            relay.gate,
            self._trust,
            relay.reload,
            now,
            dict,
            settings=relay.settings,
            upgrade=relay.upgrade,
        )

    def site(self) -> Site:
        """Return what the listener serves."""
        settings = self._relay.settings()
        protocols = [kind.name for kind in settings.active_protocols()]
        if settings.cluster:
            protocols.append("cluster")
        resources = api_resources(self._actions) | self._actions.action_resources(protocols)
        return self.listener.site(self.pages.all(), resources, self._reactor)

    def _state(self) -> str:
        return "draining" if self._relay.is_draining() else "running"

    def status(self) -> Deferred[Mapping[str, object]]:
        """Return the object of ``GET /status``."""
        return self.view.ask_all("status", READ_S).addCallback(self._merged)

    def _merged(self, answers: Mapping[int, Mapping[str, Any]]) -> Mapping[str, object]:
        used, relay = self._used(), self._relay
        own = Own(
            __version__,
            os.getpid(),
            self._state(),
            self._uptime_s(),
            used.memory_bytes,
            used.cpu_s,
            limits_of(relay.settings()),
            [
                {"names": [*one.names], "expires_at": one.expires_at, "source": one.source}
                for one in relay.certificates()
            ],
        )
        rows = [row | _fresh(answers.get(row["index"], {})) for row in self.view.rows()]
        workers = [*answers.values(), *self.view.remembered(answers)]
        return merge_status(own, workers, rows, self.view.gone, self.view.shared)


def _fresh(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a worker that has just answered holds; its last sample is a second old."""
    if not answer:
        return {}
    used = {"memory_bytes": answer["memory_bytes"], "cpu_s": answer["cpu_s"]}
    return {"connections": sum(answer["connections"].values()), **used}
