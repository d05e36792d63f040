"""Leases of which several servers know."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.leases import CapReason, Lease, LeaseLimits
from pyryrelay.guard.sharing.leases import SharedLeases

LIMITS = LeaseLimits(max_connections=1000, max_connections_per_address=8)


def take(leases: SharedLeases, key: int, count: int) -> list[Lease]:
    """Take places; return those that there were."""
    taken = [leases.take_connection(key, "/") for _ in range(count)]
    return [lease for lease in taken if isinstance(lease, Lease)]


def test_few_connections_are_not_reported() -> None:
    """From the threshold on they are; below it they are taken back, once."""
    leases = SharedLeases(LIMITS)
    assert leases.threshold == 4
    held = take(leases, 100, 3) + take(leases, 101, 4)
    assert leases.reports(10) == [(101, 4)]
    assert leases.reports(10) == []
    leases.heard([(101, 3)])
    assert leases.elsewhere(101) == leases.held(101).elsewhere == 3
    assert (leases.held(101).connections, leases.held(100).elsewhere) == (4, 0)
    held.pop().release()
    assert leases.reports(10) == [(101, 0)]
    assert leases.elsewhere(101) == 0
    held.pop().release()
    assert leases.reports(10) == []


def test_an_address_that_has_left_meanwhile_is_not_reported() -> None:
    """Others need not know of connections that were gone before they could be told."""
    leases = SharedLeases(LIMITS)
    held = take(leases, 100, 4)
    held.pop().release()
    assert leases.reports(10) == []


def test_more_servers_report_earlier() -> None:
    """Two connections are the fewest that are reported."""
    leases = SharedLeases(LIMITS)
    leases.servers = 2
    assert leases.threshold == 2
    leases.servers = 50
    take(leases, 100, 1)
    assert leases.reports(10) == []
    take(leases, 100, 1)
    assert leases.reports(10) == [(100, 2)]


def test_what_others_hold_counts() -> None:
    """For the cap of that address alone; when they cannot be asked any more, it does not."""
    leases = SharedLeases(LIMITS)
    take(leases, 100, 4)
    leases.reports(10)
    leases.heard([(100, 4), (101, 9)])
    assert leases.take_connection(100, "/") is CapReason.ADDRESS_CONNECTIONS
    assert len(take(leases, 101, 9)) == 8
    leases.alone()
    assert len(take(leases, 100, 9)) == 4
    assert sorted(leases.reports(10)) == [(100, 8), (101, 8)]
    leases.repeat()
    assert sorted(leases.reports(1) + leases.reports(9)) == [(100, 8), (101, 8)]


@given(
    steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["take", "take", "take", "end"])), max_size=80),
    count=st.integers(1, 3),
)
def test_the_cap_of_all_servers(steps: list[tuple[int, str]], count: int) -> None:
    """An address never has more than the cap, and what each other server may keep to itself."""
    servers = [SharedLeases(LIMITS) for _ in range(count)]
    held: list[list[Lease]] = [[] for _ in servers]
    told: list[int] = [0] * count
    for leases in servers:
        leases.servers = count
    for number, action in steps:
        number %= count
        if action == "end" and held[number]:
            held[number].pop().release()
        elif action == "take":
            held[number] += take(servers[number], 100, 1)
        for _ in range(2):
            for other, leases in enumerate(servers):
                leases.repeat()
                for _key, here in leases.reports(9):
                    told[other] = here
                    leases.heard([(100, sum(told) - here)])
        threshold = servers[0].threshold
        assert sum(map(len, held)) <= LIMITS.max_connections_per_address + (count - 1) * threshold


def test_a_sum_below_zero_grants_nothing() -> None:
    """Whatever a server answers, an address gets no more here than it would get without others."""
    leases = SharedLeases(LIMITS)
    take(leases, 100, 4)
    leases.reports(10)
    leases.heard([(100, -(2**63))])
    assert leases.elsewhere(100) == 0
    assert len(take(leases, 100, 10)) == 4
