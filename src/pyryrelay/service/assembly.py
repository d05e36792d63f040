"""The parts of a relay, and how they are connected. Times are seconds of a monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from pyryrelay.acme.metrics import NO_ORDERS, AcmeCollector
from pyryrelay.admin.actions import RelayActions
from pyryrelay.admin.api import ReloadOutcome, UpgradeOutcome
from pyryrelay.admin.dashboard.feed import RelayFeed
from pyryrelay.admin.listener import AdminListener
from pyryrelay.admin.status import CertificateStatus, Status, limits_of
from pyryrelay.config.derive import dropped_reasons, gate_config, never_dropped, trust_policy
from pyryrelay.config.guard_options import all_reasons
from pyryrelay.guard import TrustPolicy
from pyryrelay.handover.predecessor import Succeeded
from pyryrelay.handover.transfer import Transfer
from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.hosts import HostPolicy
from pyryrelay.http.listener_context import AcceptCallbacks, ListenerContext, LivePolicy
from pyryrelay.jail.keeper import JailKeeper, KernelPolicy
from pyryrelay.jail.store import JailStore
from pyryrelay.listen.kernel.drop import detach
from pyryrelay.listen.kernel.reuseport import DropSocket
from pyryrelay.listen.listeners import Listeners
from pyryrelay.listen.sockets import Address, Socket
from pyryrelay.mounts import MountedSettings
from pyryrelay.observe.health import Health
from pyryrelay.observe.log import EventLog
from pyryrelay.observe.metrics import CONTENT_TYPE, RelayCollector, exposition
from pyryrelay.observe.refusals import Refusals
from pyryrelay.observe.sampling import Sampler, Sources
from pyryrelay.preflight.open_files import files_needed, raise_open_files
from pyryrelay.protocol import Application, Child, Page, Services
from pyryrelay.reload import Lists, Reloader
from pyryrelay.runtime.child_process import start_child
from pyryrelay.runtime.outgoing.agent import OutgoingHttp
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.service.certificates import acme_keeper, acme_of_worker, certificate_keeper, prepare_certificates
from pyryrelay.service.cluster import cluster_collectors, cluster_sight, gate_of_member
from pyryrelay.service.foundation import Foundation, Times
from pyryrelay.service.instance import cluster_part
from pyryrelay.websocket.context import WebSocketLimits
from pyryrelay.websocket.factory import RelayFactory, own_queue
from pyryrelay.websocket.reading.read_size import WideReadSlot
from pyryrelay.workers.admin.hand_overs import HandOverCollector, PassingCollector
from pyryrelay.workers.admin.reports import Reports
from pyryrelay.workers.jails import JailOfWorker
from pyryrelay.workers.merging.health import DEGRADED
from pyryrelay.workers.mesh.handing_over import WORKER_LOST, HandingOver
from pyryrelay.workers.mesh.mesh import Mesh
from pyryrelay.workers.place import WorkerPlace
from pyryrelay.workers.shared_child import connect
from pyryrelay.workers.sockets.passing import ACCEPTED, Passing, handler_of
from pyryrelay.workers.sockets.worker_sockets import steering_of

if TYPE_CHECKING:
    from pyryrelay.acme.keeper import AcmeKeeper
    from pyryrelay.listen.tls.certificates import CertificateInfo

_log = Logger(namespace="pyryrelay")


class Assembly(Foundation):
    """The parts of a relay, connected, of which nothing runs yet.

    ``reread`` gives the settings anew for `reload`; without it a reload reads the list files alone. Relative names of
    files count from ``base``, by default the current folder. ``warnings`` are told at the start, by default those of
    the settings. The sockets of a ``predecessor`` are listened on, or those of a worker's ``place``.
    """

    running: Any = False
    """Whether it has started, as `twisted.application.service.Service` has it."""

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
        super().__init__(settings, reactor, now, times, base, warnings)
        self.predecessor = predecessor
        self.place = place
        inherited = None if predecessor is None else predecessor.sockets
        if place is not None:
            inherited = place.sockets
        self.certificates = certificate_keeper(settings, self._base, self._in_thread, speaks=place is None)
        files = None if self.certificates is None else self.certificates.files
        self._listeners = Listeners(reactor, files, inherited, self._is_passed)
        self._admin_listeners = Listeners(reactor, files, inherited)
        self._cluster_listeners = Listeners(reactor, files, inherited)
        self._drop_sockets: list[DropSocket] = []
        self._common_jail: JailOfWorker | None = None
        self._passing: Passing | None = None
        self._listener_contexts: list[ListenerContext] = []
        self._assemble(reread or (lambda: self.reloader.settings))

    def _expiries(self) -> Sequence[CertificateInfo]:
        return () if self.certificates is None else self.certificates.expiries()

    # Assembly

    def _assemble(self, reread: Callable[[], MountedSettings]) -> None:
        settings, now = self.settings, self._now
        lists = Lists(settings, self._base)
        lists.load()
        later = partial(self._reactor.callLater, 0)
        self.log = EventLog(settings.log_client_address, now, later)
        # `_configure` fills gate and policy with what follows from the settings, as a reload does.
        self.gate, self.membership = gate_of_member(settings, self._base, self._reactor, now, self.log.warn)
        self.live = LivePolicy(TrustPolicy())
        self.refusals = Refusals(self.gate, self.log, now)
        self.wheel = TimerWheel(self._reactor, now)
        self.fair_queue = own_queue(self._reactor)
        self.handing_over = self._handing_over()
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
        self.acme = self._acme_keeper()
        self._mount()
        self.sampler = Sampler(self._sources(), now)
        self._assemble_admin()
        self.reloader = Reloader(
            settings,
            lists,
            self._base,
            reread,
            self._configure,
            self._in_thread,
            partial(prepare_certificates, self.certificates),
        )
        self.jail_keeper = self._jail_keeper()
        self.transfer = self._transfer()
        self._configure(settings, lists)
        if self.place is not None:
            self.reports().listen(self.place.rpc)

    def _connections(self) -> int:
        return self.gate.leases.connections

    def _handing_over(self) -> HandingOver | None:
        """Return what gives connections to other workers, and receives theirs; None if there are none."""
        place = self.place
        if place is None or place.mesh is None:
            return None
        mesh = Mesh(self._reactor, place.mesh)
        handing_over = HandingOver(self._reactor, mesh, place.index, place.count, place.boot, self.wheel, self._now)
        place.rpc.on(WORKER_LOST, lambda body: handing_over.worker_lost(body["index"]))
        handing_over.placement.seed = place.seed
        self._passing = Passing(place.index, lambda: steering_of(self.settings, place.seed), mesh.send_object)
        mesh.on_object(ACCEPTED, handler_of(self._listeners.receive))
        return handing_over

    def _is_passed(self, endpoint: str, sock: Socket, peer: Address) -> bool:
        """Give a connection to the worker that it belongs to; return whether it is another one."""
        return self._passing is not None and self._passing.is_passed(endpoint, sock, peer)

    def _assemble_admin(self) -> None:
        """Make what operators see and do; with a supervisor, it asks for that."""
        now = self._now
        self._status_source = status = self._status()
        self._actions = RelayActions(
            self.gate,
            lambda: self.trust,
            self.reload,
            now,
            status.object,
            settings=lambda: self.settings,
            upgrade=self.upgrade,
            is_worker=self.place is not None,
        )
        panels = {name: protocol.panel() for name, protocol in self._by_name.items()}
        self._sight = cluster_sight(self.membership, self.cluster.instance, now)
        self.feed = RelayFeed(status, self.refusals, self.log, now, time.time, self._sight)
        self.admin = AdminListener(self.feed, self.log.wrong_token, lambda: panels, now, time.time)

    def _acme_keeper(self) -> AcmeKeeper | None:
        if self.place is not None:
            acme_of_worker(self.place.rpc, self.certificates, self.pages, is_used=bool(self.settings.acme))
            return None  # the supervisor orders
        reactor, in_thread = self._reactor, self._in_thread
        return acme_keeper(
            self.settings,
            self.certificates,
            self.pages,
            self._base,
            reactor,
            in_thread,
            lambda: not self.transfer.is_given,
        )

    def _status(self) -> Status:
        return Status(
            self.sampler,
            lambda: self._now() - self.health.started_at,
            lambda: self.health.draining,
            lambda: limits_of(self.settings),
            lambda: [CertificateStatus(*info) for info in self._expiries()],
        )

    def _jail_keeper(self) -> JailKeeper:
        """Return what keeps the jail, in the file of this process, or with the other workers'."""
        settings, now = self.settings, self._now
        has_store = bool(settings.jail_file) and self.place is None  # otherwise the supervisor has it
        store = JailStore(self._base / settings.jail_file, self.log.warn) if has_store else None
        keeper = JailKeeper(self.gate.jail, store, now, time.time, self.log.warn, self._in_thread)
        if self.place is not None:
            self._common_jail = JailOfWorker(self.gate.jail, keeper, self.place.rpc, now, time.time)
        return keeper

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
            start_shared=self._start_shared,
            worker_index=0 if self.place is None else self.place.index,
            worker_count=1 if self.place is None else self.place.count,
            strike=self.refusals.struck,
            is_exempt=self.gate.is_allowed,
            agent=self._outgoing.agent,
            base=self._base,
            vacated=lambda key: self.cluster.vacated(key),
            broadcast=None if self.membership is None else self.membership.broadcasts.of,
            share_quotas=None if self.membership is None else self.membership.share,
        )

    def _start_shared(self, name: str, received: Callable[[bytes], None], ended: Callable[[str], None]) -> Child:
        """See `pyryrelay.protocol.SharedStarter`."""
        if self.place is not None:
            return connect(self._reactor, self.place.children[name], received, ended)
        return start_child(self._reactor, self.settings.shared_children()[name], received, ended)

    def _sources(self) -> Sources:
        """Return what samples are taken of."""
        return Sources(
            self.gate,
            self.refusals,
            {factory.application.name: factory.traffic for factory in self.factories},
            {name: protocol.figures for name, protocol in self._by_name.items()},
        )

    def _mount(self) -> None:
        """Make a factory for each application, and find it at the paths of its protocol."""
        applications = {path: app for protocol in self.protocols for path, app in protocol.routes.items()}
        wide_slot = WideReadSlot()
        by_name = {app.name: app for app in applications.values()}
        self.factories = [self._websocket_factory(app, wide_slot) for app in by_name.values()]
        factories = {factory.application.name: factory for factory in self.factories}
        self._routes = {path: factories[app.name] for path, app in applications.items()}

    def _websocket_factory(self, application: Application, wide_slot: WideReadSlot) -> RelayFactory:
        policy, times = self.settings.routes()[application.name], self._times
        limits = WebSocketLimits(
            message_timeout_s=times.message_timeout_s,
            ping_interval_s=self.settings.ping_interval_s if times.ping_interval_s is None else times.ping_interval_s,
            pong_timeout_s=times.pong_timeout_s,
            close_timeout_s=times.close_timeout_s,
        )
        return RelayFactory(
            application,
            policy,
            limits,
            self.gate,
            self.wheel,
            self._now,
            self.fair_queue,
            wide_slot,
        )

    def _configure(self, settings: MountedSettings, lists: Lists) -> None:
        """Enforce settings from now on, as far as they can change while running; the lists are those of files, too."""
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

    def _check_open_files(self) -> None:
        shortage = raise_open_files(files_needed(self.gate.leases.limits, self.settings.worker_count))
        if shortage is not None and str(shortage) not in self._warnings:
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
            placement=self.cluster.placement if self.handing_over is None else self.handing_over.placement,
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
        between: list[Collector] = [] if self.handing_over is None else [HandOverCollector(self.handing_over)]
        if (passing := self._passing) is not None:
            between.append(PassingCollector(lambda: passing.lost))
        cluster = (*cluster_collectors(self.membership), *self.cluster.collectors())
        return [*found, shared, acme, *between, *cluster]

    def reports(self) -> Reports:
        """Return what answers the questions of a supervisor."""
        return Reports(
            self._status_source,
            self.feed.refusals,
            self._actions,
            self._by_name,
            lambda: self.health.object() | {DEGRADED: self.health.is_degraded()},
            exposition(self.collectors()),
            {"cluster": self.cluster.actions()},
            self._sight,
        )

    def _admin_pages(self) -> dict[str, Callable[[], Page]]:
        scrape = exposition(self.collectors())
        return {
            "/healthz": self.health.page,
            "/readyz": self.health.ready_page,
            "/metrics": lambda: Page(200, (("Content-Type", CONTENT_TYPE),), scrape()),
        }

    def upgrade(self) -> Deferred[UpgradeOutcome]:
        """Start another process that takes over. Only a process that runs nothing else can do that."""
        return succeed(UpgradeOutcome(error="this relay is part of another program: restart that program"))

    def reload(self) -> Deferred[ReloadOutcome]:
        """Read the configuration and the list files again."""
        return self.reloader.reload()
