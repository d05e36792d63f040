"""What a relay is to the other instances of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred, succeed

from pyryrelay.cluster.instance import Instance, Terms, boot_of
from pyryrelay.cluster.instance_metrics import InstanceCollector
from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.operating.actions import instance_actions
from pyryrelay.cluster.operating.rebalance import Rebalance
from pyryrelay.cluster.secret import check_instance
from pyryrelay.cluster.splice.arrival import QuietObserver
from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard import TrustPolicy
from pyryrelay.http.listener_context import ListenerContext, LivePolicy, WaitingConnections
from pyryrelay.http.placement import Placement
from pyryrelay.listen.listeners import Listeners
from pyryrelay.protocol import Action, RunningProtocol
from pyryrelay.runtime.periodic import Periodic
from pyryrelay.runtime.timer_wheel import TimerWheel

if TYPE_CHECKING:
    from pyryrelay.cluster.shards import Shards

__all__ = ["ClusterPart", "Held", "Servers", "cluster_part"]


class Held:
    """What the peers of all protocols hold here."""

    def __init__(self, protocols: Sequence[RunningProtocol[Any]]) -> None:
        self._protocols = protocols

    def held_keys(self) -> Collection[str]:
        """Return all keys."""
        return [key for protocol in self._protocols for key in protocol.held_keys()]

    def holds(self, key: str) -> bool:
        """Tell whether a key is held."""
        return any(protocol.holds(key) for protocol in self._protocols)

    def evict(self, key: str) -> None:
        """Give up a key."""
        for protocol in self._protocols:
            protocol.evict(key)

    def move(self, key: str) -> None:
        """Have the peers of a key connect again, to another process."""
        for protocol in self._protocols:
            protocol.move(key)


class ClusterPart:
    """What this process is to the other instances of a cluster; nothing without an ``instance``.

    ``rebalance`` moves keys to others when the operator wants it.

    From `listen` on, the relay's listeners have a `placement`.
    """

    def __init__(self, instance: Instance | None = None, rebalance: Rebalance | None = None) -> None:
        self.instance = instance
        self._rebalance = rebalance
        self._spliced = LivePolicy(TrustPolicy())
        self._has_started = False

    @property
    def placement(self) -> Placement | None:
        """What the public listeners ask; None if this is no instance."""
        instance = self.instance
        return instance.placement if instance is not None and instance.has_begun else None

    def configure(self, trust: TrustPolicy, live: LivePolicy) -> None:
        """Treat clients that other instances name as ``live`` says, but believe no header of theirs."""
        self._spliced.configure(trust, live.dropped, live.hosts)

    def listen(self, listeners: Listeners, endpoint: str, context: ListenerContext) -> None:
        """Open the endpoint for other instances. ``context`` is that of a public listener. Raises `ListenError`."""
        instance = self.instance
        if instance is None:
            return
        context = replace(
            context, observer=QuietObserver(context.observer), pages={}, proxy_protocol=False, placement=None
        )
        spliced = replace(context, live=self._spliced, waiting=WaitingConnections())
        listeners.open("--cluster-listen", endpoint, instance.arrivals(spliced, context), unix_mode=0o600)
        instance.begin(boot_of(next(iter(listeners.sockets), None)))

    def start(self, periodic: Periodic) -> None:
        """Take the lease, and keep it."""
        if self.instance is not None:
            self._has_started = True
            self.instance.start(periodic)

    def collectors(self) -> list[Collector]:
        """Return what `/metrics` shows of it."""
        return [] if self.instance is None else [InstanceCollector(self.instance)]

    def actions(self) -> Mapping[str, Action]:
        """Return its actions of the admin API."""
        if self.instance is None or self._rebalance is None:
            return {}
        return instance_actions(self.instance, self._rebalance)

    def vacated(self, key: str) -> None:
        """Release a key that is not held here any more."""
        if self.instance is not None:
            self.instance.vacated(key)

    def hand_over(self) -> None:
        """See `pyryrelay.handover.transfer.Lease`."""
        if self.instance is not None:
            self.instance.hand_over()

    def take_back(self) -> None:
        """See `pyryrelay.handover.transfer.Lease`."""
        if self.instance is not None:
            self.instance.take_back()

    def drain(self) -> None:
        """Serve no more connections of other instances: they are answered 503."""
        self._spliced.drain()
        if self.instance is not None:
            self.instance.drain()
        if self._rebalance is not None:
            self._rebalance.stop()

    def leave(self) -> Deferred[Any]:
        """Delete the lease. Never fails."""
        return succeed(None) if self.instance is None or not self._has_started else self.instance.leave()

    def stop(self) -> None:
        """Cut off what is spliced."""
        if self._rebalance is not None:
            self._rebalance.stop()
        if self.instance is not None and self.instance.has_begun:
            self.instance.cut_off()


class Servers(Protocol):
    """The servers of a cluster, and the names of what is kept there."""

    @property
    def shards(self) -> Shards:
        """The servers."""

    @property
    def keys(self) -> Keys:
        """The names, and what proves and hides them."""


def cluster_part(
    settings: SharedSettings,
    servers: Servers | None,
    protocols: Sequence[RunningProtocol[Any]],
    reactor: Any,
    now: Callable[[], float],
    wheel: TimerWheel,
    connections: Callable[[], int],
) -> ClusterPart:
    """Return what this process is to the other instances of a cluster: nothing without ``--cluster-listen``.

    ``connections`` returns how many connections it has. Raises `SettingsError`.
    """
    check_instance(settings)
    if servers is None or not settings.cluster_listen:
        return ClusterPart()
    terms = Terms(
        address=settings.cluster_advertise,
        peers=settings.cluster_peers.networks,
        trusts_unix=settings.cluster_peers.unix,
        redirect=settings.cluster_redirect,
        refuses_on_outage=settings.cluster_on_outage == "refuse",
    )
    routes, held = settings.routes(), Held(protocols)

    def claims(route: str) -> bool:
        return routes[route].claims_key

    instance = Instance(terms, servers.shards, servers.keys, held, claims, reactor, wheel, now, time.time, connections)
    return ClusterPart(instance, Rebalance(held, instance.strays.__contains__, now, reactor.callLater))
