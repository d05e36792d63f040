"""Clients that wait as long as they are told are admitted, whatever their number; a client that does not is jailed.

A crowd is known by its addresses only: 64 phones of one office are one address, and so is an attacker among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyryrelay.guard.address.clientip import ClientAddress, client_address
from pyryrelay.guard.gate import Gate
from pyryrelay.guard.gate_config import GateConfig
from pyryrelay.guard.jail import JailPolicy, Sentence
from pyryrelay.guard.leases import Lease, LeaseLimits
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.refusal import Reason, Refusal

JITTER_S, CAP, PREFIX_CAP = 0.5, 64, 512
LIMITS = LeaseLimits(max_connections_per_address=CAP, max_connections_per_prefix=PREFIX_CAP)
TEN, HUNDRED = Quota.parse("10/minute burst 20"), Quota.parse("100/minute burst 200")
USUAL = GateConfig(upgrade_quota=TEN, prefix_quota=HUNDRED, limits=LIMITS, jail=JailPolicy())
WITHIN_THE_QUEUE = {Reason.RATE_LIMIT, Reason.PREFIX_RATE_LIMIT}


def addresses(count: int, is_v6: bool = False) -> list[ClientAddress]:
    """Return addresses of one /24, or one /48."""
    texts = (f"2001:db8:1:{number:x}::1" if is_v6 else f"192.0.2.{number}" for number in range(1, count + 1))
    return [found for found in map(client_address, texts) if found is not None]


@dataclass
class Outcome:
    """The result for all clients of a crowd."""

    last_s: float = 0.0
    leases: list[Lease] = field(default_factory=list)
    refusals: Counter[Reason] = field(default_factory=Counter)
    sentences: list[Sentence] = field(default_factory=list)


def play(gate: Gate, arrivals: Iterable[tuple[float, ClientAddress]], random: Random) -> Outcome:
    """Let every client try when it wants to, and again when it was told to, until all are admitted or none may be."""
    outcome, swept_s = Outcome(), 0.0
    due = [(now, number, address) for number, (now, address) in enumerate(arrivals)]
    heapify(due)
    while due:
        now, number, address = heappop(due)
        while swept_s < now:
            gate.sweep(swept_s)
            swept_s += 1.0
        foretold = gate.peek(address, "/a", now)
        answer = gate.admit(address, "/a", now)
        if isinstance(answer, Lease):
            outcome.leases.append(answer)
            outcome.last_s = now
            continue
        assert answer == foretold
        outcome.refusals[answer.reason] += 1
        sentence = gate.strike(address, answer.reason, now)
        if sentence is not None:
            outcome.sentences.append(sentence)
        wait_s = answer.retry_after_whole_s
        if wait_s is not None:
            heappush(due, (now + wait_s + random.uniform(0.0, JITTER_S), number, address))
    return outcome


def implied_s(config: GateConfig, arrivals: Iterable[tuple[float, ClientAddress]]) -> float:
    """Return the earliest time at which the last of a crowd can be admitted, if each new token is used at once."""
    gate, now = Gate(config), 0.0
    due = [(now, number, address) for number, (now, address) in enumerate(arrivals)]
    heapify(due)
    while due:
        now, number, address = heappop(due)
        refusal = gate.peek(address, "/a", now)
        if refusal is None:
            gate.admit(address, "/a", now)
        else:
            heappush(due, (now + (refusal.retry_after_s or 0.0), number, address))
    return now


@pytest.mark.parametrize(
    ("per_address", "count", "is_v6"),
    [(40, 1, False), (CAP, 1, True), (CAP, 8, False), (2, 250, True), (2, 250, False)],
)
def test_a_crowd_at_once_is_refused_once_each(per_address: int, count: int, is_v6: bool) -> None:
    """In offices of 40 and 64 phones and in crowded prefixes, each client's second attempt is admitted in time."""
    crowd = addresses(count, is_v6) * per_address
    arrivals = [(0.0, address) for address in crowd]
    outcome = play(Gate(USUAL), arrivals, Random(7))
    assert len(outcome.leases) == len(crowd)
    assert outcome.refusals.keys() <= WITHIN_THE_QUEUE
    assert outcome.refusals.total() <= len(crowd)
    assert outcome.last_s <= implied_s(USUAL, arrivals) + 2.0
    assert outcome.sentences == []


def test_each_client_is_told_another_time() -> None:
    """Free tokens are promised in the order of refusals."""
    gate, (office,) = Gate(USUAL), addresses(1)
    answers = [gate.admit(office, "/a", 0.0) for _ in range(24)][20:]
    waits = [answer.retry_after_header for answer in answers if isinstance(answer, Refusal)]
    assert waits == ["6", "12", "18", "24"]


QUOTAS = st.one_of(
    st.just(TEN),
    st.sampled_from([*map(Quota.parse, ("60/minute burst 2", "2/s burst 5", "1/30s burst 3", "600/minute burst 30"))]),
)
PREFIX_QUOTAS = st.one_of(
    st.none(), st.just(HUNDRED), st.sampled_from([*map(Quota.parse, ("10/s burst 40", "30/minute burst 60"))])
)
CROWDS = st.lists(st.integers(1, CAP), min_size=1, max_size=6)


@settings(max_examples=40)
@given(
    own=QUOTAS,
    shared=PREFIX_QUOTAS,
    crowds=CROWDS,
    spread_s=st.sampled_from([0.0, 0.5, 5.0, 60.0, 300.0]),
    is_v6=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_clients_that_wait_as_long_as_they_are_told_are_admitted(
    own: Quota, shared: Quota | None, crowds: list[int], spread_s: float, is_v6: bool, seed: int
) -> None:
    """No client is jailed or told that the queue is full, and it takes little longer than the quotas imply."""
    config = GateConfig(upgrade_quota=own, prefix_quota=shared, limits=LIMITS, jail=JailPolicy())
    random = Random(seed)
    crowd = [address for address, count in zip(addresses(6, is_v6), crowds, strict=False) for _ in range(count)]
    arrivals = [(random.uniform(0.0, spread_s), address) for address in crowd]
    outcome = play(Gate(config), arrivals, random)
    assert len(outcome.leases) == len(crowd)
    assert outcome.refusals.keys() <= WITHIN_THE_QUEUE
    assert outcome.sentences == []
    # Clients whose turn comes late in the queue of their prefix wait for the tokens of their address after that.
    most = 1.1 if shared is None else 1.5
    assert outcome.last_s <= most * implied_s(config, arrivals) + 3 * own.emission_interval_s + 5.0


@settings(max_examples=20)
@given(
    own=st.sampled_from(
        [*map(Quota.parse, ("10/minute burst 1", "1/s burst 1", "100/minute burst 1", "10/s burst 1"))]
    ),
    count=st.integers(1, CAP),
    spread_s=st.sampled_from([0.0, 30.0]),
    seed=st.integers(0, 2**32),
)
def test_a_burst_of_one(own: Quota, count: int, spread_s: float, seed: int) -> None:
    """A bucket without a burst loses tokens to jitter, but fails no client."""
    config = GateConfig(upgrade_quota=own, limits=LIMITS, jail=JailPolicy())
    random, crowd = Random(seed), addresses(1) * count
    outcome = play(Gate(config), [(random.uniform(0.0, spread_s), address) for address in crowd], random)
    assert len(outcome.leases) == count
    assert outcome.refusals.keys() <= WITHIN_THE_QUEUE
    assert outcome.sentences == []


def test_a_crowd_that_comes_again_and_again() -> None:
    """An office whose line is cut every minute reconnects its 64 phones each time without being jailed."""
    gate, random, (office,) = Gate(USUAL), Random(3), addresses(1)
    outcome = play(gate, ((0.0, office) for _ in range(CAP)), random)
    for round_number in range(1, 10):
        for lease in outcome.leases:
            lease.release()
        began_s = 600.0 * round_number
        outcome = play(gate, ((began_s + random.uniform(0.0, 5.0), office) for _ in range(CAP)), random)
        assert len(outcome.leases) == CAP
        assert outcome.sentences == []


def hammer(gate: Gate, address: ClientAddress, every_s: float, until_s: float) -> float | None:
    """Try again at once after every answer, and return when that led to jail."""
    now = 0.0
    while now < until_s:
        answer = gate.admit(address, "/a", now)
        if isinstance(answer, Lease):
            answer.release()
        elif gate.strike(address, answer.reason, now) is not None:
            return now
        now += every_s
    return None


@pytest.mark.parametrize("every_s", [0.001, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("shared", [None, HUNDRED])
def test_a_client_that_ignores_the_time_is_jailed_within_a_minute(every_s: float, shared: Quota | None) -> None:
    """Beyond the waiting places of an address a few attempts lead to jail."""
    config = GateConfig(upgrade_quota=TEN, prefix_quota=shared, limits=LIMITS, jail=JailPolicy())
    (attacker,) = addresses(1)
    jailed_s = hammer(Gate(config), attacker, every_s, 60.0)
    assert jailed_s is not None


def test_an_attacker_among_the_clients_of_an_address_jails_it() -> None:
    """An attacker jails its address with all clients there, and the rest of the prefix is not affected."""
    gate, random = Gate(USUAL), Random(5)
    office, neighbour = addresses(2)
    crowd = [(random.uniform(0.0, 5.0), address) for address in (office, neighbour) for _ in range(40)]
    attempts = [(number * 0.2, office) for number in range(300)]
    outcome = play(gate, sorted([*crowd, *attempts]), random)
    assert {sentence.key for sentence in outcome.sentences} == {office.key}
    assert sum(lease.key == neighbour.key for lease in outcome.leases) == 40


def test_an_address_that_hammers_at_the_quota_of_its_prefix_is_jailed() -> None:
    """Against the quota of its prefix an address has no more waiting places than others."""
    gate = Gate(USUAL)
    attacker, *others = addresses(30)
    for other in others[:10] * 20:
        assert isinstance(gate.admit(other, "/a", 0.0), Lease)
    assert hammer(gate, attacker, 0.01, 60.0) is not None
    for other in others[10:]:
        answer = gate.admit(other, "/a", 2.0)
        assert isinstance(answer, Lease) or answer.reason is Reason.PREFIX_RATE_LIMIT


def test_neighbours_that_fill_the_queue_of_the_prefix_jail_no_office() -> None:
    """If other addresses of a /24 fill its queue, an office of 100 phones with tokens of its own is not jailed."""
    limits = replace(LIMITS, max_connections_per_address=100)
    gate = Gate(replace(USUAL, upgrade_quota=Quota.parse("60/minute burst 120"), limits=limits))
    office, *attackers = addresses(13)
    for attacker in attackers * 79:
        answer = gate.admit(attacker, "/a", 0.0)
        if isinstance(answer, Lease):
            answer.release()
    outcome = play(gate, [(1.0, office)] * 100, Random(7))
    assert outcome.refusals[Reason.PREFIX_QUEUE_FULL] > 60
    assert outcome.sentences == []
    assert len(outcome.leases) == 100


def test_the_queue_of_a_prefix_has_an_end() -> None:
    """When as many wait as may be connected, the next client is told the last place, without a strike."""
    config = GateConfig(upgrade_quota=None, prefix_quota=HUNDRED, limits=LIMITS, jail=JailPolicy())
    gate, prefix = Gate(config), addresses(250)
    for number in range(200):
        assert isinstance(gate.admit(prefix[number], "/a", 0.0), Lease)
    answers = [gate.admit(prefix[number % 250], "/a", 0.0) for number in range(PREFIX_CAP + 5)]
    reasons = [answer.reason for answer in answers if isinstance(answer, Refusal)]
    assert set(reasons[:PREFIX_CAP]) == {Reason.PREFIX_RATE_LIMIT}
    assert set(reasons[-2:]) == {Reason.PREFIX_QUEUE_FULL}
    last = answers[-1]
    assert last == Refusal(429, Reason.PREFIX_QUEUE_FULL, PREFIX_CAP * 0.6 + 1.5, HUNDRED)
    assert gate.peek(prefix[0], "/a", 0.0) == last


def rotate(gate: Gate, is_v6: bool, count: int, reason: str | None = None) -> list[Sentence]:
    """Make attempts of this many addresses of one prefix, each refused, for `reason` unless the gate has another."""
    found = []
    for address in addresses(count, is_v6):
        answer = gate.admit(address, "/a", 0.0) if reason is None else None
        if not isinstance(answer, Lease):
            found.append(gate.strike(address, answer.reason if answer is not None else reason or "", 0.0))
    return [sentence for sentence in found if sentence is not None]


def test_subnets_that_rotate_are_jailed_as_their_prefix() -> None:
    """A /48 whose /64 take turns is jailed as a whole when its queue is full and it goes on."""
    gate = Gate(USUAL)
    (sentence,) = rotate(gate, True, 1000)
    assert str(sentence.network) == "2001:db8:1::/48"
    newcomer = addresses(2000, True)[-1]
    assert gate.peek(newcomer, "/a", 1.0) == gate.peek_arrival(newcomer, 1.0)
    assert gate.peek(newcomer, "/a", 1.0) == Refusal(403, Reason.JAILED, None)
    assert gate.strike(newcomer, "bad_head", 1.0) is None
    assert isinstance(gate.admit(newcomer, "/a", 600.0), Lease)


@pytest.mark.parametrize("reason", ["bad_head", "slow_head", "denied"])
def test_every_kind_of_strike_counts_for_the_prefix(reason: str) -> None:
    """240 strikes a minute of as many subnets jail their /48; a prefix of IPv4 addresses is never jailed."""
    assert rotate(Gate(USUAL), True, 239, reason) == []
    assert [sentence.network.prefixlen for sentence in rotate(Gate(USUAL), True, 240, reason)] == [48]
    assert rotate(Gate(USUAL), False, 250, reason) == []


def test_few_subnets_jail_no_prefix() -> None:
    """Strikes of 39 subnets never jail the others of their /48."""
    gate, found = Gate(USUAL), set()
    *attackers, neighbour = addresses(40, True)
    for _ in range(100):
        for attacker in attackers:
            sentence = gate.strike(attacker, "bad_head", 0.0)
            if sentence is not None:
                found.add(sentence.key)
    assert found == {attacker.key for attacker in attackers}
    assert isinstance(gate.admit(neighbour, "/a", 0.0), Lease)
