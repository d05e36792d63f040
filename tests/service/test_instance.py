"""What a relay is to the other instances of a cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.cluster.test_instance import Servers, instance
from tests.support.harness import World
from tests.support.service import Machine, Port
from twisted.internet.task import Clock

from pyryrelay.cluster.keys import Keys
from pyryrelay.cluster.operating.rebalance import Rebalance
from pyryrelay.cluster.splice.arrival import ArrivalFactory
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet, TrustPolicy
from pyryrelay.listen.listeners import Listeners
from pyryrelay.mounts import Settings
from pyryrelay.runtime.periodic import Periodic
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.service.instance import ClusterPart, Held, cluster_part

INSTANCE: dict[str, Any] = {
    "cluster": ("redis://127.0.0.1:1",),
    "cluster_secret_file": "secret",
    "cluster_listen": "tcp:7000:interface=127.0.0.1",
    "cluster_advertise": "127.0.0.1:7000",
    "cluster_peers": TrustedProxies(CidrSet(["127.0.0.1"])),
}


class FakeProtocol:
    """A protocol that holds some keys."""

    def __init__(self, *keys: str) -> None:
        self.keys = {*keys}

    def held_keys(self) -> list[str]:
        """See `RunningProtocol`."""
        return sorted(self.keys)

    def holds(self, key: str) -> bool:
        """See `RunningProtocol`."""
        return key in self.keys

    def evict(self, key: str) -> None:
        """See `RunningProtocol`."""
        self.keys.discard(key)

    def move(self, key: str) -> None:
        """See `RunningProtocol`."""
        self.keys.discard(key)


def test_what_all_protocols_hold() -> None:
    """Keys are those of any protocol."""
    protocols: Any = [FakeProtocol("a"), FakeProtocol("b", "c")]
    held = Held(protocols)
    assert held.held_keys() == ["a", "b", "c"]
    assert [held.holds(key) for key in ("c", "d")] == [True, False]
    held.evict("c")
    held.move("b")
    assert held.held_keys() == ["a"]


def test_a_relay_alone_is_nothing_to_others() -> None:
    """Without ``--cluster-listen`` nothing happens."""
    clock = Clock()
    wheel = TimerWheel(clock, clock.seconds)
    for servers in (None, SimpleNamespace(shards=Servers(), keys=Keys("relay", b"s"))):
        given: Any = servers
        part = cluster_part(Settings(), given, [], clock, clock.seconds, wheel, lambda: 0)
        assert (part.instance, part.placement, part.collectors(), part.actions()) == (None, None, [], {})
        part.listen(Listeners(clock), "tcp:1", World().context)
        part.start(Periodic(clock))
        part.vacated("key")
        part.hand_over()
        part.take_back()
        part.drain()
        assert part.leave().called
        part.stop()
    assert clock.getDelayedCalls() == []


def test_settings_make_an_instance() -> None:
    """Routes claim their keys as the protocol says."""
    clock = Clock()
    servers: Any = SimpleNamespace(shards=Servers(), keys=Keys("relay", b"s"))
    wheel = TimerWheel(clock, clock.seconds)
    part = cluster_part(Settings(**INSTANCE), servers, [], clock, clock.seconds, wheel, lambda: 0)
    assert part.instance is not None
    assert part.instance.terms.address == "127.0.0.1:7000"
    assert [part.instance.claims(route) for route in ("server", "client")] == [True, False]


def test_the_life_of_an_instance(machine: Machine) -> None:
    """It listens for others, which must not be taken for clients, and then public listeners have a placement."""
    made, clock = instance()
    part = ClusterPart(made, Rebalance(Held([]), made.strays.__contains__, clock.seconds, clock.callLater))
    world = World()
    listeners = Listeners(machine)
    before = part.placement, part.leave().called
    part.configure(TrustPolicy(), world.live)
    part.listen(listeners, "tcp:7000:interface=127.0.0.1", world.context)
    port: Port = machine.ports[7000]
    assert isinstance(port.factory, ArrivalFactory)
    assert (before, part.placement) == ((None, True), made.placement)
    arrivals = port.factory._new()
    assert (arrivals.spliced.pages, arrivals.redirected) == ({}, None)
    assert len(part.collectors()) == 1
    assert set(part.actions()) == {"where", "rebalance"}
    part.start(Periodic(clock))
    part.vacated("key")
    part.drain()
    assert arrivals.spliced.live.draining
    part.hand_over()
    part.take_back()
    assert part.leave().called
    part.stop()
