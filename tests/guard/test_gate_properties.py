"""Promises of a gate under any sequence of attempts and any forward steps of the clock."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyryrelay.guard import gate as gate_module
from pyryrelay.guard.address.clientip import ClientAddress, client_address
from pyryrelay.guard.address.keys import AddressKey, covering_prefix
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.gate import Gate
from pyryrelay.guard.gate_config import GateConfig
from pyryrelay.guard.jail import JailPolicy
from pyryrelay.guard.leases import Lease, LeaseLimits
from pyryrelay.guard.rate import buckets as buckets_module
from pyryrelay.guard.rate.gcra import RESOLUTION_S, decide
from pyryrelay.guard.rate.gcra import wait_s as bucket_wait_s
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.refusal import Reason, Refusal

OWN, SHARED = Quota.parse("3/10s burst 4"), Quota.parse("7/10s burst 6")
CONFIG = GateConfig(upgrade_quota=OWN, prefix_quota=SHARED, max_tracked=1_000)


def client(text: str) -> ClientAddress:
    """Return a client address."""
    found = client_address(text)
    assert found is not None
    return found


CLIENTS = [
    client(text) for text in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8:0:1::1", "198.51.100.1")
]
STEPS_S = st.one_of(
    st.just(0.0), st.floats(0.0, 1e-5), st.floats(0.0, 5.0), st.sampled_from([10 / 3, 10 / 7, 40.0, 1e5])
)
ATTEMPTS = st.lists(
    st.tuples(STEPS_S, st.lists(st.sampled_from(CLIENTS), min_size=1, max_size=8), st.booleans(), st.booleans()),
    max_size=40,
)
STARTS = st.floats(0.0, 1e6)


def attempt(gate: Gate, address: ClientAddress, now: float, is_bad: bool = False) -> bool:
    """Try to be admitted, or spend the token of another failed attempt, and tell whether there was one."""
    if is_bad:
        return gate.spend(address, now) is None
    answer = gate.admit(address, "/a", now)
    if isinstance(answer, Lease):
        answer.release()
    return isinstance(answer, Lease)


def within(quota: Quota, admitted: list[float]) -> bool:
    """Tell whether every window has at most the burst and the tokens that came back in it."""
    return all(
        last - first + 1 <= quota.burst + (until - since + 2 * RESOLUTION_S) / quota.emission_interval_s
        for first, since in enumerate(admitted)
        for last, until in enumerate(admitted[first:], first)
    )


@given(steps=ATTEMPTS, start=STARTS)
def test_never_more_than_burst_plus_rate_in_any_window(
    steps: list[tuple[float, list[ClientAddress], bool, bool]], start: float
) -> None:
    """In any window an address, and a prefix, gets at most its burst and the tokens that come back."""
    gate, now = Gate(CONFIG), start
    by_address, by_prefix = defaultdict[AddressKey, list[float]](list), defaultdict[AddressKey, list[float]](list)
    for step_s, addresses, sweeps, is_bad in steps:
        now += step_s
        if sweeps:
            gate.sweep(now)
        for address in addresses:
            if attempt(gate, address, now, is_bad):
                by_address[address.key].append(now)
                by_prefix[covering_prefix(address.key)].append(now)
    assert all(within(OWN, admitted) for admitted in by_address.values())
    assert all(within(SHARED, admitted) for admitted in by_prefix.values())


@given(steps=ATTEMPTS, start=STARTS, address=st.sampled_from(CLIENTS))
def test_clients_that_wait_as_long_as_they_are_told_are_admitted(
    steps: list[tuple[float, list[ClientAddress], bool, bool]], start: float, address: ClientAddress
) -> None:
    """The wait of a refusal is enough, and without other clients the shortest that is."""
    gate, now = Gate(CONFIG), start
    for step_s, addresses, sweeps, is_bad in steps:
        now += step_s
        if sweeps:
            gate.sweep(now)
        for other in addresses:
            if gate.peek(other, "/a", now) is None:
                attempt(gate, other, now, is_bad)
    while (refusal := gate.peek(address, "/a", now)) is None:
        assert attempt(gate, address, now)
    for _ in range(3):
        assert refusal.reason in (Reason.RATE_LIMIT, Reason.PREFIX_RATE_LIMIT)
        assert refusal.retry_after_s is not None
        early_s = refusal.retry_after_s - 3 * RESOLUTION_S
        assert early_s < 0.0 or gate.peek(address, "/a", now + early_s) is not None
        now += refusal.retry_after_s
        assert attempt(gate, address, now)
        again = gate.peek(address, "/a", now)
        if again is None:
            return
        refusal = again


@given(steps=ATTEMPTS, start=STARTS, slice_size=st.sampled_from([6, 10_000]))
def test_forgetting_grants_and_takes_nothing(
    steps: list[tuple[float, list[ClientAddress], bool, bool]], start: float, slice_size: int
) -> None:
    """A gate that sweeps at any moments decides as if it forgot nothing."""
    gate, now, tats = Gate(replace(CONFIG, http_quota=OWN)), start, dict[AddressKey, float]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate_module, "SWEEP_SLICE", slice_size)
        for step_s, addresses, sweeps, is_bad in steps:
            now += step_s
            if sweeps:
                gate.sweep(now)
            for address in addresses:
                prefix = covering_prefix(address.key)
                own, shared = decide(OWN, tats.get(address.key), now), decide(SHARED, tats.get(prefix), now)
                assert attempt(gate, address, now, is_bad) is (own.allowed and shared.allowed)
                if own.allowed and shared.allowed:
                    tats[address.key], tats[prefix] = own.tat, shared.tat


@settings(max_examples=30)
@given(
    crowds=st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 5.0, 14.0]),
            st.integers(0, 150),
            st.lists(st.sampled_from(CLIENTS), max_size=5),
            st.booleans(),
        ),
        max_size=10,
    ),
    size=st.sampled_from([700, 860, 930, 990]),
)
def test_a_flood_grants_nothing(crowds: list[tuple[float, int, list[ClientAddress], bool]], size: int) -> None:
    """While a flood fills the tables, buckets that are shared admit no more than separate ones, in bounded memory."""
    gate, now, scanned, tats = Gate(CONFIG), 0.0, 0, dict[AddressKey, float]()

    def scan(strangers: int) -> None:
        nonlocal scanned
        for number in range(scanned, scanned + strangers):
            attempt(gate, client(f"{number % 190 + 1}.{number // 190}.0.1"), now)
        scanned += strangers

    scan(size)
    for step_s, strangers, addresses, sweeps in crowds:
        now += step_s
        if sweeps:
            gate.sweep(now)
        scan(strangers)
        for address in addresses:
            if attempt(gate, address, now):
                for key, quota in ((address.key, OWN), (covering_prefix(address.key), SHARED)):
                    decision = decide(quota, tats.get(key), now)
                    assert decision.allowed
                    tats[key] = decision.tat
        assert gate.tracked <= 2 * CONFIG.max_tracked


def test_one_sweep_disposes_of_one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep takes the time of one slice, however many quotas there are."""
    monkeypatch.setattr(gate_module, "SWEEP_SLICE", 30)
    assert buckets_module.SWEEP_SLICE > 30
    gate = Gate(replace(CONFIG, http_quota=OWN))
    for number in range(100):
        address = client(f"192.{number}.2.1")
        attempt(gate, address, 0.0)
        gate.request(address, 0.0)
    gate.sweep(0.0)
    for left in (270, 240, 210):
        gate.sweep(100.0)
        assert gate.tracked == left


@given(steps=ATTEMPTS, start=STARTS, own=st.sampled_from([OWN, Quota.parse("9/10s burst 3"), None]))
def test_a_refusal_tells_the_longer_wait(
    steps: list[tuple[float, list[ClientAddress], bool, bool]], start: float, own: Quota | None
) -> None:
    """Without other clients, a refusal has the longer wait of address and prefix, and the reason says which."""
    gate, now, tats = Gate(replace(CONFIG, upgrade_quota=own)), start, dict[AddressKey, float]()
    for step_s, addresses, sweeps, _ in steps:
        now += step_s
        if sweeps:
            gate.sweep(now)
        for address in addresses:
            prefix = covering_prefix(address.key)
            own_wait_s = 0.0 if own is None else bucket_wait_s(own, tats.get(address.key), now)
            shared_wait_s = bucket_wait_s(SHARED, tats.get(prefix), now)
            refusal = gate.peek(address, "/a", now)
            if refusal is None:
                assert gate.spend(address, now) is None
                assert own_wait_s == shared_wait_s == 0.0
                tats[prefix] = decide(SHARED, tats.get(prefix), now).tat
                if own is not None:
                    tats[address.key] = decide(own, tats.get(address.key), now).tat
            else:
                is_own = own_wait_s >= shared_wait_s
                assert refusal.retry_after_s == max(own_wait_s, shared_wait_s) > 0.0
                assert refusal.reason is (Reason.RATE_LIMIT if is_own else Reason.PREFIX_RATE_LIMIT)


ASKING = [*CLIENTS, client("203.0.113.1"), client("203.0.113.2"), client("127.0.0.1")]


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0.0, 15.0),
            st.sampled_from([*ASKING, None]),
            st.sampled_from(["/a", "/b", "/c"]),
            st.booleans(),
            st.sampled_from([None, *CLIENTS]),
        ),
        max_size=60,
    ),
    own=st.sampled_from([None, OWN]),
    shared=st.sampled_from([None, SHARED]),
)
def test_peek_foretells_admit(
    steps: list[tuple[float, ClientAddress | None, str, bool, ClientAddress | None]],
    own: Quota | None,
    shared: Quota | None,
) -> None:
    """At any moment `peek` finds the refusal that `admit` gives, or none if it gives a lease."""
    config = GateConfig(
        upgrade_quota=own,
        prefix_quota=shared,
        limits=LeaseLimits(
            max_connections=12,
            max_connections_per_address=6,
            max_handshakes=4,
            max_handshakes_per_address=2,
            max_connections_per_prefix=7,
            max_per_route={"/a": 4},
            max_per_route_and_address={"/b": 2},
        ),
        allow=CidrSet(["192.0.2.2", "203.0.113.1"]),
        deny=CidrSet(["203.0.113.0/24"]),
        jail=JailPolicy(refusals=3, within_s=60.0, first_s=20.0, longest_s=40.0),
    )
    gate, now, held = Gate(config), 0.0, list[Lease]()
    for step_s, address, route, leaves, jailed in steps:
        now += step_s
        gate.sweep(now)
        if jailed is not None:
            gate.jail.add(jailed.key, 5.0, now)
        foretold = gate.peek(address, route, now)
        assert gate.peek(address, route, now) == foretold
        answer = gate.admit(address, route, now)
        if isinstance(answer, Lease):
            assert foretold is None
            held.append(answer)
        else:
            assert isinstance(answer, Refusal)
            assert answer == foretold
            gate.strike(address, answer.reason, now)
        if leaves and held:
            held.pop(0).release()
        assert gate.leases.connections == len(held)
