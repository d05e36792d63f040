"""Leases: the gauges are what is open, under any interleaving."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyryrelay.guard.address.clientip import client_address
from pyryrelay.guard.address.keys import address_key, covering_prefix
from pyryrelay.guard.errors import GuardError
from pyryrelay.guard.leases import FEW_LEASES, CapReason, Held, Lease, LeaseLimits, Leases


def key(text: str) -> int:
    """Return the key of a client."""
    client = client_address(text)
    assert client is not None
    return client.key


ALICE, NEIGHBOUR, BOB, CAROL = map(key, ["192.0.2.1", "192.0.2.2", "2001:db8::1", "198.51.100.1"])


def lease(taken: Lease | CapReason) -> Lease:
    """Return what was taken, and check that it is a lease."""
    assert isinstance(taken, Lease)
    return taken


@pytest.mark.parametrize(
    "name",
    [
        "max_connections",
        "max_connections_per_address",
        "max_handshakes",
        "max_handshakes_per_address",
        "max_connections_per_prefix",
    ],
)
def test_a_cap_below_one_is_refused(name: str) -> None:
    """The error for a cap below one names it."""
    with pytest.raises(GuardError, match=f"{name} 0 "):
        LeaseLimits(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["max_per_route", "max_per_route_and_address"])
def test_a_cap_of_a_route_below_one_is_refused(name: str) -> None:
    """The error for a cap of a route below one names it."""
    with pytest.raises(GuardError, match=f"{name} -1 "):
        LeaseLimits(**{name: {"/a": 1, "/b": -1}})  # type: ignore[arg-type]


def test_handshakes_have_a_global_cap_that_goes_first() -> None:
    """If both caps on handshakes are reached, the global one is named."""
    leases = Leases(LeaseLimits(max_handshakes=2, max_handshakes_per_address=2))
    first = lease(leases.take_handshake(ALICE))
    lease(leases.take_handshake(ALICE))
    assert leases.take_handshake(ALICE) is leases.would_refuse_handshake(ALICE) is CapReason.GLOBAL_HANDSHAKES
    first.release()
    assert leases.would_refuse_handshake(BOB) is None
    assert isinstance(leases.take_handshake(BOB), Lease)


def test_handshakes_have_a_cap_per_address() -> None:
    """An address cannot hold all handshakes, unless it is not counted."""
    leases = Leases(LeaseLimits(max_handshakes=9, max_handshakes_per_address=1))
    held = lease(leases.take_handshake(ALICE))
    assert leases.take_handshake(ALICE) is leases.would_refuse_handshake(ALICE) is CapReason.ADDRESS_HANDSHAKES
    assert leases.would_refuse_handshake(None) is None
    for _ in range(3):
        lease(leases.take_handshake(None))
    assert leases.handshakes == 4
    held.release()
    assert isinstance(leases.take_handshake(ALICE), Lease)


def test_connections_have_a_global_cap_that_goes_first() -> None:
    """If both caps on connections are reached, the global one is named, in advance as well."""
    leases = Leases(LeaseLimits(max_connections=1, max_connections_per_address=1))
    held = lease(leases.take_connection(ALICE, "/a"))
    assert leases.would_refuse_connection(ALICE, "/a") is CapReason.GLOBAL_CONNECTIONS
    assert leases.take_connection(ALICE, "/a") is CapReason.GLOBAL_CONNECTIONS
    held.release()
    assert leases.would_refuse_connection(ALICE, "/a") is None


def test_connections_have_a_cap_per_address_over_all_routes() -> None:
    """An address cannot hold all connections by using several routes, unless it is not counted."""
    leases = Leases(LeaseLimits(max_connections=9, max_connections_per_address=1))
    lease(leases.take_connection(ALICE, "/a"))
    assert leases.would_refuse_connection(ALICE, "/a") is CapReason.ADDRESS_CONNECTIONS
    assert leases.take_connection(ALICE, "/b") is CapReason.ADDRESS_CONNECTIONS
    for _ in range(2):
        lease(leases.take_connection(None, "/b"))
    assert leases.connections_by_route == {"/a": 1, "/b": 2}


def test_a_connection_without_an_address_is_counted_on_its_route_alone() -> None:
    """A connection without an address, as on a UNIX socket, is counted on its route only."""
    leases = Leases(LeaseLimits())
    held = lease(leases.take_connection(None, "/a"))
    assert (leases.connections, sum(leases.per_address().values())) == (1, 0)
    held.release()
    assert leases.connections == 0


def test_a_lease_is_held_for_a_with_statement() -> None:
    """A lease is released once at the end of a with statement, also after an error or an early release."""
    leases = Leases(LeaseLimits())
    with lease(leases.take_connection(ALICE, "/a")):
        assert leases.connections == 1
    assert leases.connections == 0
    with pytest.raises(KeyError), lease(leases.take_handshake(ALICE)):
        raise KeyError
    assert leases.handshakes == 0
    with lease(leases.take_connection(ALICE, "/a")) as held:
        held.release()
    assert leases.connections == 0


def test_handshakes_and_connections_are_counted_apart() -> None:
    """Handshakes and connections have separate places."""
    leases = Leases(
        LeaseLimits(max_connections=1, max_connections_per_address=1, max_handshakes=1, max_handshakes_per_address=1)
    )
    handshake = lease(leases.take_handshake(ALICE))
    connection = lease(leases.take_connection(ALICE, "/a"))
    assert (leases.handshakes, leases.connections) == (1, 1)
    handshake.release()
    assert (leases.handshakes, leases.connections) == (0, 1)
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
    assert leases.connections == 3
    held.pop().release()
    assert leases.take_connection(ALICE, "/a") is CapReason.ADDRESS_CONNECTIONS
    held.pop().release()
    assert isinstance(leases.take_connection(ALICE, "/a"), Lease)


def test_the_view_by_route_cannot_be_written() -> None:
    """The gauges by route are read-only."""
    with pytest.raises(TypeError):
        Leases(LeaseLimits()).connections_by_route["/a"] = 1  # type: ignore[index]


def test_a_route_has_a_cap_of_its_own() -> None:
    """A full route refuses all clients before the cap of the address counts, and other routes go on."""
    leases = Leases(LeaseLimits(max_per_route={"/a": 2}, max_connections_per_address=2))
    held = [lease(leases.take_connection(ALICE, "/a")) for _ in range(2)]
    for key in (ALICE, BOB, None):
        assert leases.would_refuse_connection(key, "/a") is CapReason.ROUTE_CONNECTIONS
        assert leases.take_connection(key, "/a") is CapReason.ROUTE_CONNECTIONS
    lease(leases.take_connection(BOB, "/b"))
    held.pop().release()
    lease(leases.take_connection(BOB, "/a"))


def test_an_address_has_a_cap_on_a_route() -> None:
    """An address has a cap on each route, unless it is not counted."""
    leases = Leases(LeaseLimits(max_per_route_and_address={"/a": 1}))
    held = lease(leases.take_connection(ALICE, "/a"))
    assert leases.take_connection(ALICE, "/a") is CapReason.ADDRESS_CONNECTIONS
    for _ in range(2):
        lease(leases.take_connection(ALICE, "/b"))
        lease(leases.take_connection(None, "/a"))
    lease(leases.take_connection(NEIGHBOUR, "/a"))
    held.release()
    lease(leases.take_connection(ALICE, "/a"))


def test_neighbours_share_a_cap() -> None:
    """All addresses of a /24 share a cap, which is checked after that of the address."""
    leases = Leases(LeaseLimits(max_connections_per_prefix=3, max_connections_per_address=2))
    held = [lease(leases.take_connection(key, "/a")) for key in (ALICE, ALICE, NEIGHBOUR)]
    assert leases.take_connection(ALICE, "/a") is CapReason.ADDRESS_CONNECTIONS
    assert leases.take_connection(NEIGHBOUR, "/a") is CapReason.PREFIX_CONNECTIONS
    lease(leases.take_connection(CAROL, "/a"))
    held.pop(0).release()
    lease(leases.take_connection(NEIGHBOUR, "/a"))


def test_a_48_is_the_prefix_of_its_clients_however_they_are_folded() -> None:
    """Clients of any length share the cap of their /48; coarser ones are a prefix each."""
    leases = Leases(LeaseLimits(max_connections_per_prefix=2))
    keys = [address_key(IPv6Address("2001:db8::"), bits) for bits in (64, 56, 48, 32)]
    for key in keys[:2]:
        lease(leases.take_connection(key, "/a"))
    assert leases.take_connection(keys[2], "/a") is CapReason.PREFIX_CONNECTIONS
    lease(leases.take_connection(keys[3], "/a"))


def test_the_last_tenth_is_for_addresses_that_hold_few() -> None:
    """The last tenth of places is for addresses that hold fewer than four."""
    leases = Leases(LeaseLimits(max_connections=40))
    for _ in range(FEW_LEASES):
        lease(leases.take_connection(BOB, "/a"))
    rich = [lease(leases.take_connection(ALICE, "/a")) for _ in range(32)]
    assert leases.take_connection(ALICE, "/a") is CapReason.GLOBAL_CONNECTIONS
    assert leases.take_connection(BOB, "/a") is CapReason.GLOBAL_CONNECTIONS
    for _ in range(FEW_LEASES):
        lease(leases.take_connection(CAROL, "/a"))
    assert leases.connections == 40
    assert leases.take_connection(NEIGHBOUR, "/a") is CapReason.GLOBAL_CONNECTIONS
    rich.pop().release()
    assert leases.take_connection(CAROL, "/a") is CapReason.GLOBAL_CONNECTIONS
    lease(leases.take_connection(NEIGHBOUR, "/a"))


def test_the_last_tenth_of_handshakes_is_for_addresses_that_hold_few() -> None:
    """The last tenth of handshakes is for addresses that hold few; clients of a proxy count each for itself."""
    leases = Leases(LeaseLimits(max_handshakes=20, max_handshakes_per_address=16))
    many = [lease(leases.take_handshake(ALICE)) for _ in range(16)]
    few = [lease(leases.take_handshake(BOB)) for _ in range(2)]
    assert leases.take_handshake(ALICE) is leases.would_refuse_handshake(ALICE) is CapReason.GLOBAL_HANDSHAKES
    few.append(lease(leases.take_handshake(BOB)))
    few.append(lease(leases.take_handshake(None)))
    assert leases.take_handshake(CAROL) is CapReason.GLOBAL_HANDSHAKES
    for taken in few[:3]:
        taken.release()
    assert leases.would_refuse_handshake(ALICE) is CapReason.ADDRESS_HANDSHAKES
    many.pop().release()
    lease(leases.take_handshake(ALICE))


def test_how_many_hold_how_many() -> None:
    """The count of addresses by their connections leaves out uncounted ones."""
    leases = Leases(LeaseLimits())
    assert leases.per_address() == {}
    held = [lease(leases.take_connection(key, "/a")) for key in (ALICE, ALICE, BOB, NEIGHBOUR, None)]
    assert leases.per_address() == {1: 2, 2: 1}
    held[0].release()
    assert leases.per_address() == {1: 3}


class LeasesEqualOpenConnections(RuleBasedStateMachine):
    """The gauges are what is open, in any order of taking and releasing."""

    keys = st.sampled_from([ALICE, NEIGHBOUR, BOB, CAROL, None])
    routes = st.sampled_from(["/a", "/b"])

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases(
            LeaseLimits(
                max_connections=12,
                max_connections_per_address=5,
                max_handshakes=11,
                max_handshakes_per_address=6,
                max_connections_per_prefix=6,
                max_per_route={"/a": 8},
                max_per_route_and_address={"/a": 3},
            )
        )
        self.open: list[tuple[Lease, int | None, str | None]] = []
        self.closed: list[Lease] = []

    def shaking(self, key: int | None) -> CapReason | None:
        """Return which cap on handshakes the model reaches."""
        limits, owners = self.leases.limits, [owner for _, owner, route in self.open if route is None]
        own = 0 if key is None else owners.count(key)
        if len(owners) >= limits.max_handshakes - (limits.max_handshakes // 10 if own >= 4 else 0):
            return CapReason.GLOBAL_HANDSHAKES
        return CapReason.ADDRESS_HANDSHAKES if own >= limits.max_handshakes_per_address else None

    def connecting(self, key: int | None, route: str) -> CapReason | None:
        """Return which cap on connections the model reaches."""
        limits, held = self.leases.limits, [(owner, on) for _, owner, on in self.open if on is not None]
        owners = [owner for owner, _ in held if owner is not None]
        own = owners.count(key) if key is not None else 0
        if len(held) >= limits.max_connections - (limits.max_connections // 10 if own >= 4 else 0):
            return CapReason.GLOBAL_CONNECTIONS
        if [on for _, on in held].count(route) >= limits.max_per_route.get(route, 10**9):
            return CapReason.ROUTE_CONNECTIONS
        if key is None:
            return None
        on_route = held.count((key, route))
        if own >= limits.max_connections_per_address or on_route >= limits.max_per_route_and_address.get(route, 10**9):
            return CapReason.ADDRESS_CONNECTIONS
        near = [covering_prefix(owner) for owner in owners].count(covering_prefix(key))
        per_prefix = limits.max_connections_per_prefix
        return CapReason.PREFIX_CONNECTIONS if per_prefix is not None and near >= per_prefix else None

    @rule(key=keys)
    def shake_hands(self, key: int | None) -> None:
        """Accept a connection."""
        expected = self.shaking(key)
        taken = self.leases.take_handshake(key)
        if isinstance(taken, Lease):
            assert expected is None
            self.open.append((taken, key, None))
        else:
            assert taken is expected

    @rule(key=keys, route=routes, times=st.integers(1, 5))
    def connect(self, key: int | None, route: str, times: int) -> None:
        """Upgrade some connections."""
        for _ in range(times):
            expected = self.connecting(key, route)
            assert self.leases.would_refuse_connection(key, route) is expected
            taken = self.leases.take_connection(key, route)
            if isinstance(taken, Lease):
                assert expected is None
                self.open.append((taken, key, route))
            else:
                assert taken is expected

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Release any open lease."""
        if self.open:
            gone, _, _ = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
            gone.release()
            self.closed.append(gone)

    @rule(data=st.data())
    def release_again(self, data: st.DataObject) -> None:
        """Release any closed lease once more."""
        if self.closed:
            data.draw(st.sampled_from(self.closed)).release()

    @rule(
        cap=st.integers(1, 24),
        own=st.integers(1, 8),
        per_prefix=st.none() | st.integers(1, 8),
        of_routes=st.dictionaries(routes, st.integers(1, 8)),
        of_both=st.dictionaries(routes, st.integers(1, 4)),
    )
    def replace_limits(
        self, cap: int, own: int, per_prefix: int | None, of_routes: dict[str, int], of_both: dict[str, int]
    ) -> None:
        """Change the limits."""
        self.leases.limits = LeaseLimits(
            max_connections=cap,
            max_connections_per_address=own,
            max_handshakes=cap,
            max_handshakes_per_address=2,
            max_connections_per_prefix=per_prefix,
            max_per_route=of_routes,
            max_per_route_and_address=of_both,
        )

    @invariant()
    def gauges_equal_what_is_open(self) -> None:
        """Every gauge is the number of open leases, and nothing else is remembered."""
        leases, upgraded = self.leases, [(key, route) for _, key, route in self.open if route is not None]
        counted = [(key, route) for key, route in upgraded if key is not None]
        shaking = [key for _, key, route in self.open if route is None]
        assert (leases.connections, leases.handshakes) == (len(upgraded), len(shaking))
        assert leases.connections_by_route == Counter(route for _, route in upgraded)
        assert leases.per_address() == Counter(Counter(key for key, _ in counted).values())
        assert leases._connections_by_key == Counter(key for key, _ in counted)
        assert leases._connections_by_prefix == Counter(covering_prefix(key) for key, _ in counted)
        assert leases._connections_by_route_and_key == Counter((route, key) for key, route in counted)
        assert leases._handshakes_by_key == Counter(key for key in shaking if key is not None)


TestLeasesEqualOpenConnections = LeasesEqualOpenConnections.TestCase


def test_what_an_address_holds() -> None:
    """Connections, those of its neighbours with it, unfinished handshakes and the routes are counted by address."""
    leases = Leases(LeaseLimits())
    mine, neighbour = key("192.0.2.1"), key("192.0.2.2")
    assert leases.held(mine) == Held(0, 0, 0, {})
    for one, route in ((mine, "/a"), (mine, "/b"), (neighbour, "/c")):
        lease(leases.take_connection(one, route))
    lease(leases.take_handshake(mine))
    assert leases.held(mine) == Held(2, 3, 1, {"/a": 1, "/b": 1})
