"""A running relay: its listeners, its periodic work, and an orderly end. Times are seconds of a monotonic clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.task import deferLater

from pyryrelay.admin.api import api_resources
from pyryrelay.admin.protocol_actions import action_resources
from pyryrelay.config.endpoints import is_haproxy
from pyryrelay.listen.kernel.drop import KernelDrop, kernel_drop
from pyryrelay.logger import ErrbackLogger
from pyryrelay.observe.log import INTERVAL_S
from pyryrelay.observe.sampling import PROBE_S, SAMPLE_S
from pyryrelay.runtime.bounded_poll import bound_poll
from pyryrelay.service.assembly import Assembly

_log = ErrbackLogger(namespace="pyryrelay")
_log_failure: Final = _log.errback("A protocol failed to end in order")

SWEEP_S = 0.25
JAIL_SYNC_S = 1.0
SYNC_S = 1.0
"""How often a member of a cluster exchanges what need not be exchanged at once."""
LISTS_LOOK_S = 2.0
QUEUE_LOOK_S = 1.0
DRAIN_POLL_S = 0.05
MOVE_LATE_S = 2.0
"""How much longer than ``--drain-over`` moving all peers may take."""
STOP_S = 10.0
"""How long a protocol may take to stop when its connections are gone."""


class RelayService(Service, Assembly):
    """A running relay.

    One with a ``predecessor``, or a ``place`` among workers, listens on inherited sockets, and serves nobody before
    `serve`.
    """

    _drain_until = inf

    # Start

    def privilegedStartService(self) -> None:
        """Listen, while privileges last: ports under 1024 need them."""
        super().privilegedStartService()
        if self._waits:
            self._listeners.pause()
            self._admin_listeners.pause()
            self._cluster_listeners.pause()
        if self.settings.cluster_listen:
            # First, because other listeners ask the directory, which needs to know what this process is called.
            self.cluster.listen(self._cluster_listeners, self.settings.cluster_listen, self.http_factory().context)
        for text in self.settings.listen:
            factory = self.http_factory(behind_proxy_protocol=is_haproxy(text))
            self._listeners.open("--listen", text, factory)
        self.worker.listen(self.http_factory, self.cluster.placement)
        admin = self.settings.admin_listen
        if admin and self.place is None:
            protocols = {name: protocol.actions() for name, protocol in self._by_name.items()}
            protocols["cluster"] = self._cluster_actions
            resources = api_resources(self._actions) | action_resources(protocols)
            site = self.admin.site(self._admin_pages(), resources, self._reactor)
            self._admin_listeners.open("--admin-listen", admin, site, unix_mode=0o600)
        if self.settings.kernel_drop is not False and self.place is None:
            self._drop_sockets = self._listeners.open_drop_sockets()

    @property
    def _waits(self) -> bool:
        """Whether another process says when this one serves."""
        return self.predecessor is not None or self.place is not None

    def startService(self) -> None:
        """Begin the periodic work, and say where the relay can be reached."""
        if not self._listeners:
            self.privilegedStartService()
        super().startService()
        bound_poll(self._reactor, before_turn=self.fair_queue.begin_turn)
        self._tell_warnings()
        self._check_open_files(is_told=self.place is not None)
        self._periodic.every(SWEEP_S, lambda: self.gate.sweep(self._now()))
        self._periodic.every(INTERVAL_S, self.log.sweep)
        self._periodic.every(JAIL_SYNC_S, self.jail_keeper.sync)
        self._periodic.every(LISTS_LOOK_S, self.reloader.refresh_lists)
        self._periodic.every(QUEUE_LOOK_S, self._listeners.receive_queued)
        if self.certificates is not None:
            self.certificates.start(self._periodic)
        if self.membership is not None:
            self.membership.start()
            self._periodic.every(SYNC_S, self.membership.sync)
        if not self._waits:
            self.serve()
        if self.settings.admin_listen:
            self._periodic.every(PROBE_S, self.sampler.probe)
        if self.settings.admin_listen and self.place is None:
            self._periodic.every(SAMPLE_S, self.admin.sample)
        if self.place is None:
            self._tell_where()

    def serve(self, sentences: Sequence[Sequence[object]] = ()) -> Deferred[None]:
        """Accept connections, with the jail's sentences of the predecessor or the supervisor, if there is one.

        The Deferred has fired: what the predecessor is asked first was sent.
        """
        if self.acme is not None:
            # Not earlier, because an authority asks the process that accepts.
            self.acme.start(self._periodic)
        self.jail_keeper.start(self._kernel_drop(), sentences)
        if self.membership is not None:
            self.membership.share_jail()
        self.cluster.start(self._periodic)
        for name, protocol in self._by_name.items():
            protocol.start(None if self.predecessor is None else self.predecessor.of(name))
        self.health.is_accepting = True
        self.worker.start()
        if self._waits:
            self._listeners.resume()
            self._admin_listeners.resume()
            self._cluster_listeners.resume()
        self._listeners.receive_queued()
        return succeed(None)

    def _kernel_drop(self) -> KernelDrop | None:
        """Return what drops in the kernel; None for nothing, or if a supervisor does."""
        if self.place is not None:
            return None
        listeners = self._listeners
        return kernel_drop(self.settings, listeners.sockets, self._drop_sockets, listeners.without_drop_socket)

    # Stop

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop listening, close everyone with 1001, drain for a bounded time, cut off who is left."""
        super().stopService()
        # Another process has the same sockets: the one that has taken over, the one that still serves, or a supervisor.
        is_shared = self.transfer.is_given or not self.health.is_accepting or self.place is not None
        self.health.drain()
        self.live.drain()
        self.cluster.drain()
        if self.cluster.placement is not None and self.health.is_accepting and not self.transfer.is_given:
            yield self._move_away()
        if self.acme is not None:
            self.acme.stop()
        yield self.jail_keeper.stop_dropping()
        yield self._listeners.close(leave_to_other=is_shared)
        yield self._cluster_listeners.close(leave_to_other=is_shared)
        drain_s = self._times.drain_s
        self._drain_until = min(self._drain_until, self._now() + drain_s)
        # Peers need the rest of the time for what they are sent, and for the closing handshake.
        yield self._finish([protocol.drain for protocol in self.protocols], lambda: self._drain_until - drain_s / 5)
        count = sum(len(factory.open) for factory in self.factories)
        _log.info("shutting down, {count} connections to close", count=count)
        for factory in self.factories:
            factory.shut_down()
        yield self._drained()
        yield self.cluster.leave()
        self._cut_off()
        self.worker.stop()
        self.cluster.stop()
        self._periodic.stop()
        stopped_by = self._now() + STOP_S
        yield self._finish([protocol.stop for protocol in self.protocols], lambda: stopped_by)
        yield self._finish([self._outgoing.close], lambda: stopped_by)
        if self.membership is not None:
            yield self._finish([self.membership.leave], lambda: stopped_by)
            self.membership.stop()
        yield self.jail_keeper.stop()
        if self._common_jail is not None:
            yield self._finish([self._common_jail.arrived], lambda: stopped_by)
        self.admin.stop()
        yield self._admin_listeners.close(leave_to_other=is_shared)
        self.log.stop()

    @inlineCallbacks
    def _move_away(self) -> Any:
        """Let the peers of one key after the other connect to other instances, while this one still listens."""
        over_s = self.settings.drain_over_s
        holding = [protocol for protocol in self.protocols if protocol.held_keys()]
        _log.info("leaving the cluster: all peers move within {seconds} s", seconds=over_s)
        self._drain_until = self._now() + over_s + MOVE_LATE_S
        yield self._finish([partial(protocol.hand_over, over_s) for protocol in holding], lambda: self._drain_until)
        is_skipped = self._drain_until <= self._now()
        yield self.cluster.leave()
        self._drain_until = self._now() if is_skipped else inf

    @inlineCallbacks
    def _drained(self) -> Any:
        while self._has_connections() and self._now() < self._drain_until:
            yield deferLater(self._reactor, DRAIN_POLL_S)

    def _has_connections(self) -> bool:
        """Whether peers are connected, to this process or through it."""
        return self.worker.splices > 0 or any(factory.open for factory in self.factories)

    @inlineCallbacks
    def _finish(self, calls: Iterable[Callable[[], Deferred[None] | None]], end: Callable[[], float]) -> Any:
        """Make calls of protocols, and wait until their Deferreds have fired, but not longer than until ``end``."""
        # Not `called` of each: it is also true of one that waits for a second Deferred, which a callback has returned.
        finished = DeferredList([maybeDeferred(call).addErrback(_log_failure) for call in calls])
        while not finished.called and self._now() < end():
            yield deferLater(self._reactor, DRAIN_POLL_S)

    def skip_drain(self) -> None:
        """Do not wait for peers any longer."""
        self._drain_until = self._now()

    def _cut_off(self) -> None:
        for factory in self.factories:
            factory.abort()
        for context in self._listener_contexts:
            context.waiting.shut_down()
