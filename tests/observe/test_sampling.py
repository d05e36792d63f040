"""Samples of a running relay: what they hold, and what they cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.pyry import address
from twisted.internet.task import Clock

from pyryrelay.guard import Gate, Lease
from pyryrelay.observe.log import EventLog
from pyryrelay.observe.refusals import Refusals
from pyryrelay.observe.sampling import PER_ADDRESS_S, PROBE_S, SAMPLE_S, Sampler, Sources, memory_bytes
from pyryrelay.websocket.context import Traffic


class Relay:
    """A gate with two applications, and a sampler of it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.gate = Gate()
        self.refusals = Refusals(self.gate, EventLog("full", self.clock.seconds), self.clock.seconds)
        self.traffic = {"server": Traffic(), "client": Traffic()}
        sources = Sources(
            self.gate, self.refusals, self.traffic, {"room": lambda: {"visitors": 3}}, lambda: 1000, lambda: 0.5
        )
        self.sampler = Sampler(sources, self.clock.seconds)

    def connect(self, text: str = "192.0.2.7") -> Lease:
        """Take a place for a client."""
        lease = self.gate.leases.take_connection(address(text).key, "client")
        assert isinstance(lease, Lease)
        return lease


@pytest.fixture
def relay() -> Relay:
    """A relay to which nothing has happened yet."""
    return Relay()


def test_a_relay_without_clients(relay: Relay) -> None:
    """Every figure is there from the first sample."""
    sample = relay.sampler.take()
    assert (sample.connections, sample.admitted) == ({"server": 0, "client": 0}, {"server": 0, "client": 0})
    assert (sample.refused, sample.messages, sample.bytes) == ({}, (0, 0), (0, 0))
    assert (sample.tracked, sample.jailed, sample.handshakes, sample.reactor_lag_s) == (0, 0, 0, 0.0)
    assert (sample.memory_bytes, sample.cpu_s, sample.protocols) == (1000, 0.5, {"room": {"visitors": 3}})
    assert relay.sampler.decision_s is None


def test_what_a_sample_counts(relay: Relay) -> None:
    """Connections, admissions and refusals by their names; messages and bytes of all applications together."""
    relay.connect()
    relay.refusals.refused("client", 429, "rate_limit", address())
    relay.refusals.refused(None, 404, "unknown_path", address())
    relay.traffic["server"] = replace(relay.traffic["server"], messages_in=2, bytes_out=70)
    relay.traffic["client"] = replace(relay.traffic["client"], admitted=1, messages_in=3, messages_out=4, bytes_in=9)
    sample = relay.sampler.look()
    assert sample.connections == {"server": 0, "client": 1}
    assert sample.admitted == {"server": 0, "client": 1}
    assert sample.refused == {"rate_limit": 1, "unknown_path": 1}
    assert (sample.messages, sample.bytes) == ((5, 4), (9, 70))


def test_the_lag_of_the_reactor(relay: Relay) -> None:
    """A sample has the longest delay of a probe since the one before it; a look between two has the longer of both."""
    sampler, clock = relay.sampler, relay.clock
    for delay_s in (0.0, 0.5, 0.1):
        sampler.probe()
        clock.advance(PROBE_S + delay_s)
    sampler.probe()
    assert sampler.take().reactor_lag_s == pytest.approx(0.5)
    assert sampler.look().reactor_lag_s == pytest.approx(0.5)
    clock.advance(PROBE_S + 0.75)
    sampler.probe()
    assert sampler.look().reactor_lag_s == pytest.approx(0.75)
    assert sampler.take().reactor_lag_s == pytest.approx(0.75)
    assert sampler.take().reactor_lag_s == 0.0


def test_a_timer_that_is_early_is_no_lag(relay: Relay) -> None:
    """After a late call, the next one comes early."""
    relay.sampler.probe()
    relay.clock.advance(PROBE_S / 2)
    relay.sampler.probe()
    assert relay.sampler.take().reactor_lag_s == 0.0


def test_the_time_of_a_decision(relay: Relay) -> None:
    """It is the mean of the last minute; after a minute without any, of all."""
    relay.refusals.decided(0.004)
    relay.sampler.take()
    assert relay.sampler.decision_s == pytest.approx(0.004)
    assert relay.sampler.decided == 1
    for _ in range(61):
        relay.clock.advance(SAMPLE_S)
        relay.sampler.take()
    relay.refusals.decided(0.001)
    relay.refusals.decided(0.002)
    relay.sampler.take()
    assert relay.sampler.decision_s == pytest.approx(0.0015)
    for _ in range(61):
        relay.sampler.take()
    assert relay.sampler.decision_s == pytest.approx(0.007 / 3)


def test_addresses_by_their_connections(relay: Relay) -> None:
    """They are counted at most once in some seconds, since that takes time in their number."""
    for _ in range(3):
        relay.connect()
    relay.connect("192.0.2.8")
    counted = dict(relay.sampler.per_address())
    assert {most: addresses for most, addresses in counted.items() if addresses} == {1: 1, 4: 1}
    assert list(counted)[-1] is None
    relay.connect("192.0.2.9")
    assert dict(relay.sampler.per_address())[1] == 1
    relay.clock.advance(PER_ADDRESS_S)
    assert dict(relay.sampler.per_address())[1] == 2


def test_the_memory_of_this_process() -> None:
    """It is between a megabyte and a terabyte."""
    assert 2**20 < memory_bytes() < 2**40


def test_memory_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems without /proc tell the most that there was."""
    monkeypatch.setattr("pyryrelay.observe.sampling._STATM", Path("/nothing/here"))
    assert 2**20 < memory_bytes() < 2**40
