"""Leases: what is held is what is open, under any interleaving."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyryrelay.guard.errors import GuardError
from pyryrelay.guard.leases import CapReason, Lease, LeaseLimits, Leases

ALICE, BOB, CAROL = 10, 11, 12


def lease(taken: Lease | CapReason) -> Lease:
    """Return what was taken, which must be a lease."""
    assert isinstance(taken, Lease)
    return taken


@pytest.mark.parametrize(
    "name", ["max_connections", "max_connections_per_address", "max_handshakes", "max_handshakes_per_address"]
)
def test_a_cap_below_one_is_refused(name: str) -> None:
    """A cap under which nobody could connect is refused by name."""
    with pytest.raises(GuardError, match=f"{name} 0 "):
        LeaseLimits(**{name: 0})


def test_handshakes_have_a_global_cap_that_goes_first() -> None:
    """When both caps on handshakes are reached the global one is named."""
    leases = Leases(LeaseLimits(max_handshakes=2, max_handshakes_per_address=2))
    first = lease(leases.take_handshake(ALICE))
    lease(leases.take_handshake(ALICE))
    assert leases.take_handshake(ALICE) is CapReason.GLOBAL_HANDSHAKES
    first.release()
    assert isinstance(leases.take_handshake(BOB), Lease)


def test_handshakes_have_a_cap_per_address() -> None:
    """One address cannot hold all handshakes, unless it is not counted."""
    leases = Leases(LeaseLimits(max_handshakes=9, max_handshakes_per_address=1))
    held = lease(leases.take_handshake(ALICE))
    assert leases.take_handshake(ALICE) is CapReason.ADDRESS_HANDSHAKES
    for _ in range(3):
        lease(leases.take_handshake(None))
    assert leases.handshakes == 4
    held.release()
    assert isinstance(leases.take_handshake(ALICE), Lease)


def test_connections_have_a_global_cap_that_goes_first() -> None:
    """When both caps on connections are reached the global one is named, ahead of time too."""
    leases = Leases(LeaseLimits(max_connections=1, max_connections_per_address=1))
    held = lease(leases.take_connection(ALICE, "/a"))
    assert leases.would_refuse_connection(ALICE) is CapReason.GLOBAL_CONNECTIONS
    assert leases.take_connection(ALICE, "/a") is CapReason.GLOBAL_CONNECTIONS
    held.release()
    assert leases.would_refuse_connection(ALICE) is None


def test_connections_have_a_cap_per_address_over_all_routes() -> None:
    """One address cannot hold all connections by using several routes, unless it is not counted."""
    leases = Leases(LeaseLimits(max_connections=9, max_connections_per_address=1))
    lease(leases.take_connection(ALICE, "/a"))
    assert leases.would_refuse_connection(ALICE) is CapReason.ADDRESS_CONNECTIONS
    assert leases.take_connection(ALICE, "/b") is CapReason.ADDRESS_CONNECTIONS
    for _ in range(2):
        lease(leases.take_connection(None, "/b"))
    assert leases.connections_by_route == {"/a": 1, "/b": 2}


def test_handshakes_and_connections_are_counted_apart() -> None:
    """A handshake takes no connection's place, nor the other way round."""
    leases = Leases(LeaseLimits(1, 1, 1, 1))
    handshake = lease(leases.take_handshake(ALICE))
    connection = lease(leases.take_connection(ALICE, "/a"))
    assert (leases.handshakes, leases.connections) == (1, 1)
    handshake.release()
    assert (leases.handshakes, leases.connections) == (0, 1)
    assert (handshake.held, connection.held) == (False, True)
    assert (handshake.key, handshake.route, connection.route) == (ALICE, None, "/a")


def test_a_second_release_does_nothing() -> None:
    """Only the first release gives the place back."""
    leases = Leases(LeaseLimits())
    first, second = (lease(leases.take_connection(ALICE, "/a")) for _ in range(2))
    for _ in range(3):
        first.release()
    assert leases.connections == 1
    assert leases.connections_by_route == {"/a": 1}
    second.release()
    assert leases.connections_by_route == {}


def test_limits_can_be_replaced_while_leases_are_held() -> None:
    """Lower limits end no lease and count from the next attempt on."""
    leases = Leases(LeaseLimits())
    held = [lease(leases.take_connection(ALICE, "/a")) for _ in range(3)]
    leases.limits = LeaseLimits(max_connections_per_address=2)
    assert all(one.held for one in held)
    held.pop().release()
    assert leases.take_connection(ALICE, "/a") is CapReason.ADDRESS_CONNECTIONS
    held.pop().release()
    assert isinstance(leases.take_connection(ALICE, "/a"), Lease)


def test_the_view_by_route_cannot_be_written() -> None:
    """Nobody but the leases changes the gauges by route."""
    with pytest.raises(TypeError):
        Leases(LeaseLimits()).connections_by_route["/a"] = 1  # type: ignore[index]


class LeasesEqualOpenConnections(RuleBasedStateMachine):
    """Whatever is taken and released in whatever order, the gauges are what is open."""

    keys = st.sampled_from([ALICE, BOB, CAROL, None])
    routes = st.sampled_from(["/a", "/b"])

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases(LeaseLimits(6, 3, 5, 2))
        self.open: list[tuple[Lease, int | None, str | None]] = []
        self.closed: list[Lease] = []

    def held(self, key: int | None, upgraded: bool) -> tuple[int, int]:
        """Count what is open: of all, and of one key."""
        keys = [owner for _, owner, route in self.open if (route is not None) is upgraded]
        return len(keys), 0 if key is None else keys.count(key)

    def expected(self, key: int | None, upgraded: bool) -> CapReason | None:
        """Say which cap the model sees reached."""
        limits, (total, own) = self.leases.limits, self.held(key, upgraded)
        if upgraded:
            caps = (limits.max_connections, limits.max_connections_per_address)
            reasons = (CapReason.GLOBAL_CONNECTIONS, CapReason.ADDRESS_CONNECTIONS)
        else:
            caps = (limits.max_handshakes, limits.max_handshakes_per_address)
            reasons = (CapReason.GLOBAL_HANDSHAKES, CapReason.ADDRESS_HANDSHAKES)
        return next((why for n, cap, why in zip((total, own), caps, reasons, strict=True) if n >= cap), None)

    @rule(key=keys)
    def shake_hands(self, key: int | None) -> None:
        """A connection arrives."""
        expected = self.expected(key, False)
        taken = self.leases.take_handshake(key)
        if isinstance(taken, Lease):
            assert expected is None
            self.open.append((taken, key, None))
        else:
            assert taken is expected

    @rule(key=keys, route=routes)
    def connect(self, key: int | None, route: str) -> None:
        """A connection is upgraded."""
        expected = self.expected(key, True)
        assert self.leases.would_refuse_connection(key) is expected
        taken = self.leases.take_connection(key, route)
        if isinstance(taken, Lease):
            assert expected is None
            self.open.append((taken, key, route))
        else:
            assert taken is expected

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Any open one goes."""
        if self.open:
            gone, _, _ = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
            gone.release()
            self.closed.append(gone)

    @rule(data=st.data())
    def release_again(self, data: st.DataObject) -> None:
        """Any closed one is released once more."""
        if self.closed:
            data.draw(st.sampled_from(self.closed)).release()

    @rule(cap=st.integers(1, 8))
    def replace_limits(self, cap: int) -> None:
        """The operator changes the limits."""
        self.leases.limits = LeaseLimits(cap, 3, cap, 2)

    @invariant()
    def gauges_equal_what_is_open(self) -> None:
        """Every gauge is the number of open ones, and nothing else is remembered."""
        assert self.leases.handshakes == self.held(None, False)[0]
        assert self.leases.connections == self.held(None, True)[0]
        assert self.leases.connections_by_route == Counter(route for _, _, route in self.open if route)
        remembered = {*self.leases._connections_by_key, *self.leases._handshakes_by_key}
        assert remembered == {key for _, key, _ in self.open if key is not None}
        assert all(one.held for one, _, _ in self.open)
        assert not any(one.held for one in self.closed)


TestLeasesEqualOpenConnections = LeasesEqualOpenConnections.TestCase
