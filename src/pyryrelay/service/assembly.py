"""The parts of a relay, and how they are connected. Times are seconds of a monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pyryrelay.acme.metrics import NO_ORDERS, AcmeCollector
from pyryrelay.admin.actions import RelayActions
from pyryrelay.admin.api import ReloadOutcome
from pyryrelay.admin.dashboard.feed import RelayFeed
from pyryrelay.admin.listener import AdminListener
from pyryrelay.admin.status import Status, limits_of
from pyryrelay.config.derive import dropped_reasons, gate_config, never_dropped, trust_policy
from pyryrelay.config.guard_options import all_reasons
from pyryrelay.guard import TrustPolicy
from pyryrelay.handover.predecessor import Succeeded
from pyryrelay.handover.transfer import Transfer
from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.hosts import HostPolicy
from pyryrelay.http.listener_context import AcceptCallbacks, ListenerContext, LivePolicy
from pyryrelay.jail.keeper import KernelPolicy
from pyryrelay.listen.kernel.drop import detach
from pyryrelay.listen.kernel.reuseport import DropSocket
from pyryrelay.mounts import MountedSettings
from pyryrelay.observe.health import Health
from pyryrelay.observe.metrics import CONTENT_TYPE, RelayCollector, exposition
from pyryrelay.observe.refusals import Refusals
from pyryrelay.observe.sampling import Sampler, Sources
from pyryrelay.preflight.open_files import files_needed, raise_open_files
from pyryrelay.protocol import Page, Services
from pyryrelay.reload import Lists
from pyryrelay.runtime.child_process import start_child
from pyryrelay.runtime.outgoing.agent import OutgoingHttp
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.service.certificates import acme_of_worker
from pyryrelay.service.cluster import (
    cluster_actions,
    cluster_collectors,
    cluster_overview,
    cluster_sight,
    gate_of_member,
)
from pyryrelay.service.foundation import Foundation, Times
from pyryrelay.service.instance import cluster_part
from pyryrelay.service.mounting import mounted
from pyryrelay.service.worker import WorkerPart
from pyryrelay.websocket.factory import own_queue
from pyryrelay.workers.admin.reports import Reports
from pyryrelay.workers.jails import JailOfWorker
from pyryrelay.workers.merging.health import DEGRADED
from pyryrelay.workers.place import WorkerPlace

if TYPE_CHECKING:
    from pyryrelay.acme.keeper import AcmeKeeper

_log = Logger(namespace="pyryrelay")


class Assembly(Foundation):
    """The parts of a relay, connected, of which nothing runs yet.

    For the arguments, see `Foundation`. The sockets of a ``predecessor`` are listened on, or those of a worker's
    ``place``.
    """

    def __init__(
        self,
        settings: MountedSettings,
        reactor: Any,
        now: Callable[[], float],
        times: Times,
        reread: Callable[[], MountedSettings] | None = None,
        base: Path | None = None,
        warnings: Sequence[str] | None = None,
        predecessor: Succeeded | None = None,
        place: WorkerPlace | None = None,
    ) -> None:
        has = predecessor if place is None else place
        inherited = None if has is None else has.sockets
        super().__init__(settings, reactor, now, times, reread, base, warnings, inherited, is_worker=place is not None)
        self.predecessor = predecessor
        self.place = place
        self.wheel = TimerWheel(reactor, now)
        self.worker = WorkerPart(place, lambda: self.settings, reactor, self.wheel, now)
        self._listeners = self._new_listeners(self.worker.is_passed)
        self.worker.accept_passed(self._listeners)
        self._admin_listeners, self._cluster_listeners = self._new_listeners(), self._new_listeners()
        self._drop_sockets: list[DropSocket] = []
        self._common_jail: JailOfWorker | None = None
        self._listener_contexts: list[ListenerContext] = []
        self._assemble()

    # Assembly

    def _assemble(self) -> None:
        settings, now = self.settings, self._now
        # `_configure` fills gate and policy with what follows from the settings, as a reload does.
        self.gate, self.membership = gate_of_member(settings, self._base, self._reactor, now, self.log.warn)
        self.live = LivePolicy(TrustPolicy())
        self.refusals = Refusals(self.gate, self.log, now)
        self.fair_queue = own_queue(self._reactor)
        self._outgoing = OutgoingHttp(self._reactor)
        services = self._services()
        kinds = [kind for kind in settings.protocols if kind.is_on(settings)]
        self._by_name = {kind.name: kind.build(settings, services) for kind in kinds}
        self.protocols = list(self._by_name.values())
        self.cluster = cluster_part(
            settings, self.membership, self.protocols, self._reactor, now, self.wheel, self._connections
        )
        self.health = Health(
            now,
            now(),
            [protocol.health for protocol in self.protocols],
            lambda: all(protocol.is_healthy() for protocol in self.protocols),
            lambda: self.membership is not None and not self.membership.is_whole,
        )
        self.pages: dict[str, Callable[[], Page]] = {"/healthz": self.health.page, "/readyz": self.health.ready_page}
        """What all listeners show, whichever host is asked for. Pages may be added and removed."""
        self.acme = self._acme()
        self._routes = mounted(self.protocols, settings, self._times, self.gate, self.wheel, now, self.fair_queue)
        self.factories = list(dict.fromkeys(self._routes.values()))
        self.sampler = Sampler(self._sources(), now)
        self._assemble_admin()
        self._assemble_jail()
        self.transfer = self._transfer()
        self.reloader.begin()
        if self.place is not None:
            self.reports().listen(self.place.rpc)

    def _connections(self) -> int:
        return self.gate.leases.connections

    def _assemble_admin(self) -> None:
        """Make what operators see and do; with a supervisor, it asks for that."""
        now = self._now
        overview = cluster_overview(self.membership, self.cluster.instance, now)
        self._status_source = status = self._status(None if overview is None else overview.summary)
        self._sight = sight = cluster_sight(overview)
        self._cluster_actions = cluster_actions(overview, self.cluster.actions())
        self._actions = RelayActions(
            self.gate,
            lambda: self.trust,
            self.reload,
            now,
            status.object,
            settings=lambda: self.settings,
            upgrade=self.upgrade,
            is_worker=self.place is not None,
            cluster=None if sight is None else partial(sight, False),
            protocols=self._by_name,
        )
        panels = {name: protocol.panel() for name, protocol in self._by_name.items()}
        self.feed = RelayFeed(status, self.refusals, self.log, now, time.time, self._sight)
        self.admin = AdminListener(self.feed, self.log.wrong_token, lambda: panels, now, time.time)

    def _acme(self) -> AcmeKeeper | None:
        if self.place is None:
            return self._acme_keeper(self.pages, lambda: not self.transfer.is_given)
        acme_of_worker(self.place.rpc, self.certificates, self.pages, is_used=bool(self.settings.acme))
        return None  # the supervisor orders

    def _status(self, cluster: Callable[[], Mapping[str, Any]] | None) -> Status:
        return Status(
            self.sampler,
            lambda: self._now() - self.health.started_at,
            lambda: self.health.draining,
            lambda: limits_of(self.settings),
            self._certificates,
            cluster,
        )

    def _assemble_jail(self) -> None:
        """Have the jail kept: in the file of this process, or with the other workers'."""
        jail, now = self.gate.jail, self._now
        self.jail_keeper = self._keeper_of(jail, has_file=self.place is None)
        if self.place is not None:
            self._common_jail = JailOfWorker(jail, self.jail_keeper, self.place.rpc, now, time.time)

    def _transfer(self) -> Transfer:
        """Return what a process that takes over gets."""
        listeners = (self._listeners, self._admin_listeners, self._cluster_listeners)
        contexts = self._listener_contexts
        return Transfer(self._reactor, listeners, self.jail_keeper, self._by_name, contexts, self.health, self.cluster)

    def _services(self) -> Services:
        """Return what protocols may use."""
        return Services(
            now=self._now,
            call_later=self._reactor.callLater,
            in_thread=self._in_thread,
            log=self.log,
            refused=lambda: self.refusals.counts,
            reload_failures=lambda: self.reloader.failures,
            start_child=partial(start_child, self._reactor),
            start_shared=self.worker.start_shared,
            worker_index=self.worker.index,
            worker_count=self.worker.count,
            strike=self.refusals.struck,
            is_exempt=self.gate.is_allowed,
            agent=self._outgoing.agent,
            base=self._base,
            vacated=lambda key: self.cluster.vacated(key),
            broadcast=None if self.membership is None else self.membership.broadcasts.of,
            share_quotas=None if self.membership is None else self.membership.share,
        )

    def _sources(self) -> Sources:
        """Return what samples are taken of."""
        return Sources(
            self.gate,
            self.refusals,
            {factory.application.name: factory.traffic for factory in self.factories},
            {name: protocol.figures for name, protocol in self._by_name.items()},
        )

    def _configure(self, settings: MountedSettings, lists: Lists) -> None:
        """See `Foundation`."""
        limits = self.gate.leases.limits
        allow, deny = lists.networks
        # These two first, because they may refuse the settings, and then nothing must have changed.
        configure_admin = self.admin.prepared(settings, self._base) if self.place is None else lambda: None
        self.gate.configure(gate_config(settings, allow, deny), self._now())
        configure_admin()
        self.settings = settings
        self.trust = trust_policy(settings)
        self.live.configure(self.trust, dropped_reasons(settings), HostPolicy(settings.host))
        self.cluster.configure(trust_policy(settings, trusts_nobody=True), self.live)
        routes = settings.routes()
        for factory in self.factories:
            factory.configure(routes[factory.application.name])
        merged = lists.merged(settings)
        for protocol in self.protocols:
            protocol.configure(merged)
        self.log.configure(settings.log_client_address)
        self.jail_keeper.configure(KernelPolicy(never_dropped(settings, allow), settings.ipv6_prefix))
        if self.running and self.gate.leases.limits != limits:
            self._check_open_files()

    def _check_open_files(self, *, is_told: bool = False) -> None:
        """Raise the limit of open files, and warn if it is too low, unless the supervisor has told so."""
        shortage = raise_open_files(files_needed(self.gate.leases.limits, self.settings))
        if shortage is not None and not is_told and str(shortage) not in self._warnings:
            _log.warn("{warning}", warning=str(shortage))

    def http_factory(self, *, behind_proxy_protocol: bool = False) -> HttpFactory:
        """The factory for one public listener."""
        context = ListenerContext(
            gate=self.gate,
            routes=self._routes,
            pages=self.pages,
            observer=self.refusals,
            wheel=self.wheel,
            now=self._now,
            live=self.live,
            callbacks=AcceptCallbacks(self._accepted if self.settings.kernel_drop else None),
            behind_proxy_protocol=behind_proxy_protocol,
            proxy_protocol=self.settings.proxy_protocol,
            fair_queue=self.fair_queue,
            head_timeout_s=self._times.head_timeout_s,
            placement=self.worker.placement or self.cluster.placement,
        )
        self._listener_contexts.append(context)
        return HttpFactory(context)

    def _accepted(self, transport: Any) -> None:
        """An accepted socket inherits its listener's filter, and should not keep it."""
        if self.jail_keeper.filters_sockets or self.place is not None:
            detach(transport.getHandle())

    def collectors(self) -> list[Collector]:
        """Return what `/metrics` shows: of each protocol, and of the shared rooms."""
        shared = RelayCollector(
            self.gate,
            self.refusals,
            [factory.application.name for factory in self.factories],
            all_reasons(self.settings.active_words()),
            lambda: self._now() - self.health.started_at,
            self._expiries,
        )
        acme = AcmeCollector(NO_ORDERS if self.acme is None else self.acme.orders)
        found = (collector for protocol in self.protocols for collector in protocol.collectors())
        cluster = (*cluster_collectors(self.membership), *self.cluster.collectors())
        return [*found, shared, acme, *self.worker.collectors(), *cluster]

    def reports(self) -> Reports:
        """Return what answers the questions of a supervisor."""
        return Reports(
            self._status_source,
            self.feed.refusals,
            self._actions,
            self._by_name,
            lambda: self.health.object() | {DEGRADED: self.health.is_degraded()},
            exposition(self.collectors()),
            {"cluster": self._cluster_actions},
            self._sight,
        )

    def _admin_pages(self) -> dict[str, Callable[[], Page]]:
        scrape = exposition(self.collectors())
        return {
            "/healthz": self.health.page,
            "/readyz": self.health.ready_page,
            "/metrics": lambda: Page(200, (("Content-Type", CONTENT_TYPE),), scrape()),
        }

    def reload(self) -> Deferred[ReloadOutcome]:
        """Read the configuration and the list files again."""
        return self.reloader.reload()
