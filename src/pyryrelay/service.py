"""The assembly: the only module that knows every room.

`build` turns settings into a service that any Twisted program can run; `pyryrelay.start.twistd` has the one that twistd
runs. It knows protocols as the list that the settings name, and each room by one method: what follows from the settings
goes to its ``configure``, at the start and at every reload.

Nothing here is global: the reactor and the clock come in by argument. The clock is monotonic; all times are seconds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.registry import Collector
from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay import __version__
from pyryrelay.acme.metrics import NO_ORDERS, AcmeCollector
from pyryrelay.admin.actions import RelayActions
from pyryrelay.admin.api import ReloadOutcome, UpgradeOutcome, api_resources
from pyryrelay.admin.listener import AdminListener
from pyryrelay.admin.protocol_actions import action_resources
from pyryrelay.admin.status import CertificateStatus, Status, limits_of
from pyryrelay.config.derive import dropped_reasons, drops_in_kernel, gate_config, never_dropped, trust_policy
from pyryrelay.config.endpoints import is_haproxy
from pyryrelay.config.guard_options import all_reasons
from pyryrelay.guard import Gate, TrustPolicy
from pyryrelay.handover.predecessor import Predecessor
from pyryrelay.handover.transfer import Transfer
from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.hosts import HostPolicy
from pyryrelay.http.listener_context import HEAD_TIMEOUT_S, AcceptCallbacks, ListenerContext, LivePolicy
from pyryrelay.jail.keeper import JailKeeper, KernelPolicy
from pyryrelay.jail.store import JailStore
from pyryrelay.listen.kernel.drop import KernelDrop, detach
from pyryrelay.listen.kernel.reuseport import DropSocket
from pyryrelay.listen.listeners import Listeners
from pyryrelay.mounts import MountedSettings
from pyryrelay.observe.health import Health
from pyryrelay.observe.log import INTERVAL_S, EventLog
from pyryrelay.observe.metrics import CONTENT_TYPE, RelayCollector, exposition
from pyryrelay.observe.refusals import Refusals
from pyryrelay.observe.sampling import PROBE_S, SAMPLE_S, Sampler, Sources
from pyryrelay.preflight.inspection import of_settings
from pyryrelay.preflight.native import native_parts
from pyryrelay.preflight.open_files import files_needed, raise_open_files
from pyryrelay.preflight.report import report
from pyryrelay.protocol import Application, Page, Services
from pyryrelay.reload import Lists, Reloader
from pyryrelay.runtime.bounded_poll import bound_poll
from pyryrelay.runtime.child_process import start_child
from pyryrelay.runtime.monotonic import follow_monotonic_clock
from pyryrelay.runtime.outgoing.agent import OutgoingHttp
from pyryrelay.runtime.periodic import Periodic
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.websocket.context import WebSocketLimits
from pyryrelay.websocket.factory import RelayFactory, own_queue
from pyryrelay.websocket.reading.read_size import WideReadSlot

if TYPE_CHECKING:
    from pyryrelay.acme.keeper import AcmeKeeper
    from pyryrelay.listen.tls.certificates import CertificateInfo
    from pyryrelay.listen.tls.keeper import CertificateKeeper

_log = Logger(namespace="pyryrelay")

SWEEP_S = 0.25
JAIL_SYNC_S = 1.0
LISTS_LOOK_S = 2.0
QUEUE_LOOK_S = 1.0
DRAIN_POLL_S = 0.05
STOP_S = 10.0
"""How long a protocol may take to stop when its connections are gone."""


@dataclass(frozen=True, slots=True)
class Times:
    """The specification's times that are no options; tests shorten them."""

    head_timeout_s: float = HEAD_TIMEOUT_S
    message_timeout_s: float = 30.0
    ping_interval_s: float | None = None
    """None is `ConnectionSettings.ping_interval_s`."""
    pong_timeout_s: float = 30.0
    close_timeout_s: float = 5.0
    drain_s: float = 10.0


class RelayService(Service):
    """A running relay: its listeners, its periodic work, and an orderly end.

    ``reread`` gives the settings anew for `reload`; without it a reload reads the list files alone. Relative names of
    files count from ``base``, by default the current folder. ``warnings`` are told at the start, by default those of
    the settings. A service with a ``predecessor`` listens on its sockets, and serves nobody before `serve`.
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
        predecessor: Predecessor | None = None,
    ) -> None:
        self.settings = settings
        self._base = Path.cwd() if base is None else base
        if warnings is None:
            warnings = report([*of_settings(settings, self._base), *native_parts()], settings).warnings
        self._warnings = warnings
        self._reactor = reactor
        # Before anything is scheduled: timers must not wait until a wall clock that was set back has caught up.
        follow_monotonic_clock(reactor)
        self._now = now
        self._times = times
        self.predecessor = predecessor
        inherited = None if predecessor is None else predecessor.sockets
        self.certificates = self._certificate_keeper()
        files = None if self.certificates is None else self.certificates.files
        self._listeners = Listeners(reactor, files, inherited)
        self._admin_listeners = Listeners(reactor, files, inherited)
        self._drop_sockets: list[DropSocket] = []
        self._periodic = Periodic(reactor)
        self._drain_until = float("inf")
        self._listener_contexts: list[ListenerContext] = []
        self._assemble(reread or (lambda: self.reloader.settings))

    def _certificate_keeper(self) -> CertificateKeeper | None:
        """Read the certificates of the ``ssl:`` endpoints; None if there are none. Raises `CertificateError`."""
        endpoints = self.settings.tls_endpoints
        if not endpoints:
            return None
        # Most relays leave TLS to a proxy, and need not have OpenSSL.
        from pyryrelay.listen.tls.file_watch import CertificateFiles
        from pyryrelay.listen.tls.keeper import CertificateKeeper

        files = CertificateFiles(self.settings.certificate, endpoints, self._base, has_others=bool(self.settings.acme))
        files.load()
        return CertificateKeeper(files, time.time, self._in_thread)

    def _prepare_certificates(self, settings: MountedSettings) -> Callable[[], None]:
        """Read the certificates that a reload adds; see `Reloader`."""
        if self.certificates is None:
            return lambda: None
        from pyryrelay.listen.tls.certificates import CertificateError

        try:
            return self.certificates.prepare(settings.certificate)
        except CertificateError as error:
            raise settings.error("certificate", error.problem, error.fix) from None

    def _acme_keeper(self) -> AcmeKeeper | None:
        """Return what keeps the certificates of ``--acme``; None if there are none."""
        if self.certificates is None or not self.settings.acme:
            return None
        from pyryrelay.acme.keeper import AcmeKeeper, Environment

        start = partial(start_child, self._reactor)
        environment = Environment(
            time.time,
            self._reactor.callLater,
            random.random,
            start,
            self._in_thread,
            lambda: not self.transfer.is_given,
        )
        return AcmeKeeper.of(self.settings, self.certificates.store, self.pages, self._base, environment)

    def _expiries(self) -> Sequence[CertificateInfo]:
        return () if self.certificates is None else self.certificates.expiries()

    # Assembly

    def _assemble(self, reread: Callable[[], MountedSettings]) -> None:
        settings, now = self.settings, self._now
        lists = Lists(settings, self._base)
        lists.load()
        later = partial(self._reactor.callLater, 0)
        # `_configure` fills these two with what follows from the settings, as a reload does.
        self.gate, self.live = Gate(), LivePolicy(TrustPolicy())
        self.log = EventLog(settings.log_client_address, now, later)
        self.refusals = Refusals(self.gate, self.log, now)
        self.wheel = TimerWheel(self._reactor, now)
        self.fair_queue = own_queue(self._reactor)
        self._outgoing = OutgoingHttp(self._reactor)
        services = self._services()
        kinds = [kind for kind in settings.protocols if kind.is_on(settings)]
        self._by_name = {kind.name: kind.build(settings, services) for kind in kinds}
        self.protocols = list(self._by_name.values())
        self.health = Health(
            now,
            now(),
            [protocol.health for protocol in self.protocols],
            lambda: all(protocol.is_healthy() for protocol in self.protocols),
        )
        self.pages: dict[str, Callable[[], Page]] = {
            "/healthz": self.health.page,
            "/readyz": self.health.ready_page,
        }
        """What all listeners show, whichever host is asked for. Pages may be added and removed."""
        self.acme = self._acme_keeper()
        self._mount()
        self.sampler = Sampler(self._sources(), now)
        status = Status(
            self.sampler,
            lambda: self._now() - self.health.started_at,
            lambda: self.health.draining,
            lambda: limits_of(self.settings),
            lambda: [CertificateStatus(*info) for info in self._expiries()],
        )
        self._actions = RelayActions(
            self.gate,
            lambda: self.trust,
            self.reload,
            now,
            status.object,
            settings=lambda: self.settings,
            upgrade=self.upgrade,
        )
        panels = {name: protocol.panel() for name, protocol in self._by_name.items()}
        self.admin = AdminListener(status, self.refusals, self.log, panels, now, time.time)
        self.reloader = Reloader(
            settings, lists, self._base, reread, self._configure, self._in_thread, self._prepare_certificates
        )
        store = JailStore(self._base / settings.jail_file, self.log.warn) if settings.jail_file else None
        self.jail_keeper = JailKeeper(self.gate.jail, store, now, time.time, self.log.warn, self._in_thread)
        self.transfer = self._transfer()
        self._configure(settings, lists)

    def _transfer(self) -> Transfer:
        """Return what a process that takes over gets."""
        listeners = (self._listeners, self._admin_listeners)
        contexts = self._listener_contexts
        return Transfer(self._reactor, listeners, self.jail_keeper, self._by_name, contexts, self.health)

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
            strike=self.refusals.struck,
            is_exempt=self.gate.is_allowed,
            agent=self._outgoing.agent,
            base=self._base,
        )

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

    def _in_thread(self, call: Callable[[], Any]) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call)

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
        configure_admin = self.admin.prepared(settings, self._base)
        self.gate.configure(gate_config(settings, allow, deny), self._now())
        configure_admin()
        self.settings = settings
        self.trust = trust_policy(settings)
        self.live.configure(self.trust, dropped_reasons(settings), HostPolicy(settings.host))
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
        shortage = raise_open_files(files_needed(self.gate.leases.limits))
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
        )
        self._listener_contexts.append(context)
        return HttpFactory(context)

    def _accepted(self, transport: Any) -> None:
        """An accepted socket inherits its listener's filter, and should not keep it."""
        if self.jail_keeper.filters_sockets:
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
        return [*(collector for protocol in self.protocols for collector in protocol.collectors()), shared, acme]

    def _admin_pages(self) -> dict[str, Callable[[], Page]]:
        scrape = exposition(self.collectors())
        return {
            "/healthz": self.health.page,
            "/readyz": self.health.ready_page,
            "/metrics": lambda: Page(200, (("Content-Type", CONTENT_TYPE),), scrape()),
        }

    # Start

    def privilegedStartService(self) -> None:
        """Listen, while privileges last: ports under 1024 need them."""
        super().privilegedStartService()
        if self.predecessor is not None:
            self._listeners.pause()
            self._admin_listeners.pause()
        for text in self.settings.listen:
            factory = self.http_factory(behind_proxy_protocol=is_haproxy(text))
            self._listeners.open("--listen", text, factory)
        admin = self.settings.admin_listen
        if admin:
            protocols = {name: protocol.actions() for name, protocol in self._by_name.items()}
            resources = api_resources(self._actions) | action_resources(protocols)
            site = self.admin.site(self._admin_pages(), resources, self._reactor)
            self._admin_listeners.open("--admin-listen", admin, site, unix_mode=0o600)
        if self.settings.kernel_drop is not False:
            self._drop_sockets = self._listeners.open_drop_sockets()

    def startService(self) -> None:
        """Begin the periodic work, and say where the relay can be reached."""
        if not self._listeners:
            self.privilegedStartService()
        super().startService()
        bound_poll(self._reactor, before_turn=self.fair_queue.begin_turn)
        for line in self._warnings:
            _log.warn("{warning}", warning=line)
        self._check_open_files()
        self._periodic.every(SWEEP_S, lambda: self.gate.sweep(self._now()))
        self._periodic.every(INTERVAL_S, self.log.sweep)
        self._periodic.every(JAIL_SYNC_S, self.jail_keeper.sync)
        self._periodic.every(LISTS_LOOK_S, self.reloader.refresh_lists)
        self._periodic.every(QUEUE_LOOK_S, self._listeners.receive_queued)
        if self.certificates is not None:
            self.certificates.start(self._periodic)
        if self.predecessor is None:
            self.serve()
        if self.settings.admin_listen:
            self._periodic.every(PROBE_S, self.sampler.probe)
            self._periodic.every(SAMPLE_S, self.admin.sample)
        for text in self.settings.listen:
            _log.info("pyryrelay {version} listens on {endpoint}", version=__version__, endpoint=text)
        if self.settings.admin_listen:
            _log.info("metrics on {endpoint}", endpoint=self.settings.admin_listen)

    def serve(self, sentences: Sequence[Sequence[object]] = ()) -> None:
        """Accept connections, with the jail's sentences of the predecessor, if there is one."""
        if self.acme is not None:
            # Not earlier, because an authority asks the process that accepts.
            self.acme.start(self._periodic)
        self.jail_keeper.start(self._kernel_drop(), sentences)
        for name, protocol in self._by_name.items():
            protocol.start(None if self.predecessor is None else self.predecessor.of(name))
        self.health.is_accepting = True
        if self.predecessor is not None:
            self._listeners.resume()
            self._admin_listeners.resume()
        self._listeners.receive_queued()

    def upgrade(self) -> Deferred[UpgradeOutcome]:
        """Start another process that takes over. Only a process that runs nothing else can do that."""
        return succeed(UpgradeOutcome(error="this relay is part of another program: restart that program"))

    def _kernel_drop(self) -> KernelDrop | None:
        """What drops in the kernel, with the privileges that are left; None for nothing."""
        for sock in self._listeners.sockets:
            # One that was handed down may have the filter of a process that had no time to take it off.
            detach(sock)
        missing, wanted = self._listeners.without_drop_socket, self.settings.kernel_drop
        if missing and wanted is None and drops_in_kernel(self.settings):
            _log.info(
                "jailed sources are dropped at accept on {count} of the sockets, not in the kernel: {reason}",
                count=len(missing),
                reason=", ".join(sorted(set(missing.values()))),
            )
        kernel = KernelDrop(self._drop_sockets, missing if wanted else ())
        return kernel if kernel.is_on else None

    def reload(self) -> Deferred[ReloadOutcome]:
        """Read the configuration and the list files again."""
        return self.reloader.reload()

    # Stop

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop listening, close everyone with 1001, drain for a bounded time, cut off who is left."""
        super().stopService()
        # Another process has the same sockets: the one that has taken over, or the one that still serves.
        is_shared = self.transfer.is_given or not self.health.is_accepting
        self.health.drain()
        self.live.drain()
        if self.acme is not None:
            self.acme.stop()
        yield self.jail_keeper.stop_dropping()
        yield self._listeners.close(leave_to_other=is_shared)
        drain_s = self._times.drain_s
        self._drain_until = min(self._drain_until, self._now() + drain_s)
        # Peers need the rest of the time for what they are sent, and for the closing handshake.
        yield self._finish([protocol.drain for protocol in self.protocols], lambda: self._drain_until - drain_s / 5)
        count = sum(len(factory.open) for factory in self.factories)
        _log.info("shutting down, {count} connections to close", count=count)
        for factory in self.factories:
            factory.shut_down()
        yield self._drained()
        self._cut_off()
        self._periodic.stop()
        stopped_by = self._now() + STOP_S
        yield self._finish([protocol.stop for protocol in self.protocols], lambda: stopped_by)
        yield self._finish([self._outgoing.close], lambda: stopped_by)
        yield self.jail_keeper.stop()
        self.admin.stop()
        yield self._admin_listeners.close(leave_to_other=is_shared)
        self.log.stop()

    @inlineCallbacks
    def _drained(self) -> Any:
        while any(factory.open for factory in self.factories) and self._now() < self._drain_until:
            yield deferLater(self._reactor, DRAIN_POLL_S)

    @inlineCallbacks
    def _finish(self, calls: Iterable[Callable[[], Deferred[None] | None]], end: Callable[[], float]) -> Any:
        """Make calls of protocols, and wait until their Deferreds have fired, but not longer than until ``end``."""
        waiting = [maybeDeferred(call).addErrback(_log_failure) for call in calls]
        while not all(deferred.called for deferred in waiting) and self._now() < end():
            yield deferLater(self._reactor, DRAIN_POLL_S)

    def skip_drain(self) -> None:
        """Do not wait for peers any longer."""
        self._drain_until = self._now()

    def _cut_off(self) -> None:
        for factory in self.factories:
            factory.abort()
        for context in self._listener_contexts:
            context.waiting.shut_down()


def _log_failure(failure: Failure) -> None:
    _log.failure("A protocol failed to end in order", failure)


def build(
    settings: MountedSettings,
    reactor: Any,
    now: Callable[[], float] = time.monotonic,
    times: Times = Times(),
) -> RelayService:
    """A service that is ready to start; it listens on nothing yet."""
    return RelayService(settings, reactor, now, times)
