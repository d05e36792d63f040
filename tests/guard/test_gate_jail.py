"""The gate's jail: what is a strike, which clients are never jailed, and what a ban does at each depth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.address.clientip import ClientAddress, client_address
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.gate import Gate
from pyryrelay.guard.gate_config import GateConfig
from pyryrelay.guard.jail import JailPolicy, Sentence
from pyryrelay.guard.leases import Lease, LeaseLimits
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.refusal import Reason, Refusal

STRICT = GateConfig(
    jail=JailPolicy(refusals=3, within_s=10.0, first_s=100.0, longest_s=400.0),
    no_fault_reasons=frozenset({"draining"}),
    http_quota_reasons=frozenset({"bad_head", "no_upgrade", "unknown_path"}),
)
JAILED = Refusal(403, Reason.JAILED, None)
FAULTS = ["queue_full", "http_rate_limit", "denied", "address_cap", "handshake_address_cap"]
FAULTS += ["tls_rate_limit", "tls_prefix_rate_limit"]
NO_FAULTS = [
    "rate_limit",
    "prefix_rate_limit",
    "global_cap",
    "route_cap",
    "prefix_cap",
    "handshake_cap",
    "jailed",
    "draining",
]


def client(text: str, ipv6_prefix: int = 64) -> ClientAddress:
    """Return a client address."""
    found = client_address(text, ipv6_prefix)
    assert found is not None
    return found


ALICE, NEIGHBOUR, BOB = client("192.0.2.1"), client("192.0.2.2"), client("2001:db8::1")


def struck(gate: Gate, address: ClientAddress | None, now: float = 0.0, reason: str = "address_cap") -> Sentence | None:
    """Strike three times, and return the ban of the last strike."""
    assert gate.strike(address, reason, now) is None
    assert gate.strike(address, reason, now) is None
    return gate.strike(address, reason, now)


def test_the_jailed_are_refused_everywhere_and_spend_nothing() -> None:
    """A jailed address gets 403 without a wait at every depth until its ban ends."""
    gate = Gate(replace(STRICT, http_quota=Quota.parse("1/s"), prefix_quota=Quota.parse("1/s")))
    assert struck(gate, ALICE) == Sentence(ALICE.key, 100.0, 1)
    for now in (0.0, 99.0):
        assert gate.arrive(ALICE, now) == gate.spend(ALICE, now) == gate.request(ALICE, now) == JAILED
        assert gate.peek(ALICE, "/a", now) == gate.admit(ALICE, "/a", now) == JAILED
    assert (gate.tracked, gate.leases.connections, gate.leases.handshakes) == (0, 0, 0)
    assert isinstance(gate.admit(NEIGHBOUR, "/a", 99.0), Lease)
    assert isinstance(gate.admit(ALICE, "/a", 100.0), Lease)


def test_jail_goes_before_the_deny_list() -> None:
    """A jailed address that is also denied is refused as jailed, which is dropped without an answer."""
    gate = Gate(replace(STRICT, deny=CidrSet(["192.0.2.0/24"])))
    struck(gate, ALICE, reason="denied")
    assert gate.peek(ALICE, "/a", 0.0) == JAILED
    assert gate.peek(NEIGHBOUR, "/a", 0.0) == Refusal(403, Reason.DENIED, None)


@pytest.mark.parametrize("reason", [*FAULTS, "unknown_path", "bad_head"])
def test_what_the_client_does_wrong_is_a_strike(reason: str) -> None:
    """Reasons of the guard and of its caller are strikes if the client is at fault."""
    assert struck(Gate(STRICT), ALICE, reason=reason) is not None


@pytest.mark.parametrize(
    ("quota", "address", "is_struck"),
    [("10/minute", ALICE, False), ("10/minute", BOB, True), (None, ALICE, True), (None, BOB, True)],
)
def test_a_full_queue_of_the_prefix_is_a_strike_where_the_own_queue_cannot_tell(
    quota: str | None, address: ClientAddress, is_struck: bool
) -> None:
    """A full queue of the prefix is a strike only for addresses without a queue of their own."""
    gate = Gate(replace(STRICT, upgrade_quota=None if quota is None else Quota.parse(quota)))
    assert (struck(gate, address, reason="prefix_queue_full") is not None) is is_struck


ASKING = replace(STRICT, http_quota=Quota.parse("1/s burst 2"))


@pytest.mark.parametrize("reason", ["no_upgrade", "unknown_path", "bad_head"])
def test_what_was_paid_for_is_no_strike(reason: str) -> None:
    """With a quota of requests a refusal is an answer, so that requests that web pages send jail no client."""
    gate = Gate(ASKING)
    assert struck(gate, ALICE, reason=reason) is None
    assert gate.jail.tracked == 0
    assert struck(gate, ALICE, reason="missing_header") is not None


def test_reasons_of_the_caller_follow_the_configuration() -> None:
    """They are strikes without the quota that pays for them, and unless they are listed as not the client's fault."""
    gate = Gate(replace(STRICT, no_fault_reasons=frozenset()))
    assert struck(gate, ALICE, reason="draining") is not None
    gate.configure(STRICT, 0.0)
    assert struck(gate, NEIGHBOUR, reason="draining") is None
    assert struck(gate, NEIGHBOUR, reason="no_upgrade") is not None
    gate.configure(ASKING, 0.0)
    assert struck(gate, BOB, reason="no_upgrade") is None


@pytest.mark.parametrize(("quota", "patience"), [("1/s burst 2", 20), ("2/s burst 3", 30), ("1000000/s", 1_000_000)])
def test_requests_lead_to_jail_far_beyond_their_quota_only(quota: str, patience: int) -> None:
    """Refusals by the quota of requests jail at ten times that quota, as far as a quota can be so large."""
    gate = Gate(replace(STRICT, http_quota=Quota.parse(quota)))
    sentences = [gate.strike(ALICE, Reason.HTTP_RATE_LIMIT, 0.0) for _ in range(patience + 3)]
    assert [sentence is not None for sentence in sentences] == [False] * (patience + 2) + [True]
    assert gate.strike(BOB, Reason.HTTP_RATE_LIMIT, 0.0) is None


def test_a_page_of_pictures_jails_no_client() -> None:
    """Under the relay's defaults 300 requests at once, and 5 a second for an hour, jail no client."""
    gate = Gate(replace(STRICT, http_quota=Quota.parse("60/minute burst 120"), jail=JailPolicy()))
    moments = [0.0] * 300 + [second / 5 for second in range(5 * 3600)]
    for now in moments:
        refusal = gate.request(ALICE, now)
        reason = "no_upgrade" if refusal is None else refusal.reason
        assert gate.strike(ALICE, reason, now) is None
        gate.sweep(now)


def test_a_flood_of_requests_ends_in_jail() -> None:
    """100 requests a second lead to jail within a minute."""
    gate = Gate(replace(STRICT, http_quota=Quota.parse("60/minute burst 120"), jail=JailPolicy()))
    for hundredth in range(60 * 100):
        now = hundredth / 100
        refusal = gate.request(ALICE, now)
        if gate.strike(ALICE, "no_upgrade" if refusal is None else refusal.reason, now) is not None:
            break
    assert gate.request(ALICE, 60.0) == JAILED


@pytest.mark.parametrize("reason", NO_FAULTS)
def test_what_others_do_is_no_strike(reason: str) -> None:
    """Refusals because the server or the prefix is full, or of a jailed address, are no strikes."""
    gate = Gate(STRICT)
    assert struck(gate, ALICE, reason=reason) is None
    assert gate.jail.tracked == 0


def test_every_reason_is_a_strike_or_not() -> None:
    """Every reason is listed as a strike or as none; without an address there is none."""
    assert {*FAULTS, *NO_FAULTS, "prefix_queue_full", "unattributable"} == {*Reason, "draining"}


def test_a_storm_against_a_cap_leads_to_jail() -> None:
    """A cap spends tokens, so that a storm against a full relay still leads to jail."""
    gate = Gate(replace(STRICT, limits=LeaseLimits(max_connections=1, max_connections_per_address=8)))
    gate.admit(BOB, "/a", 0.0)
    sentences = []
    for _ in range(40):
        refusal = gate.admit(ALICE, "/a", 0.0)
        assert isinstance(refusal, Refusal)
        sentences.append(gate.strike(ALICE, refusal.reason, 0.0))
    assert [number for number, sentence in enumerate(sentences) if sentence] == [20 + 8 + 2]


@pytest.mark.parametrize(
    ("address", "config"),
    [
        (client("127.0.0.1"), STRICT),
        (client("127.9.9.9"), STRICT),
        (client("::1"), STRICT),
        (client("::ffff:127.0.0.1"), STRICT),
        (ALICE, replace(STRICT, allow=CidrSet(["192.0.2.1"]))),
        (ALICE, replace(STRICT, jail_exempt=CidrSet(["192.0.2.1"]))),
        (BOB, replace(STRICT, jail_exempt=CidrSet(["2001:db8::/32"]))),
    ],
)
def test_some_are_never_jailed(address: ClientAddress, config: GateConfig) -> None:
    """Loopback, allowed and exempt addresses get no strikes, and bans do not hold for them."""
    gate = Gate(config)
    assert struck(gate, address) is None
    assert gate.jail.tracked == 0
    gate.jail.add(address.key, 50.0, 0.0)
    assert isinstance(gate.arrive(address, 1.0), Lease)
    assert gate.spend(address, 1.0) is None
    assert gate.request(address, 1.0) is None
    assert isinstance(gate.admit(address, "/a", 1.0), Lease)


def test_exempt_addresses_have_no_other_privilege() -> None:
    """Quotas and the deny list hold for exempt addresses."""
    jail_exempt = CidrSet(["192.0.2.0/24"])
    gate = Gate(replace(STRICT, upgrade_quota=Quota.parse("1/m"), jail_exempt=jail_exempt, deny=CidrSet(["192.0.2.2"])))
    gate.admit(ALICE, "/a", 0.0)
    assert gate.peek(ALICE, "/a", 0.0) == Refusal(429, Reason.RATE_LIMIT, 60.0, gate.config.upgrade_quota)
    assert gate.peek(NEIGHBOUR, "/a", 0.0) == Refusal(403, Reason.DENIED, None)


def test_no_strikes_without_an_address_or_a_policy() -> None:
    """Without an address or a policy there are no strikes; an operator can still jail."""
    assert struck(Gate(STRICT), None) is None
    gate = Gate(GateConfig())
    assert struck(gate, ALICE) is None
    gate.jail.add(ALICE.key, 50.0, 0.0)
    assert gate.peek(ALICE, "/a", 1.0) == JAILED


def test_the_gate_sweeps_its_jail() -> None:
    """Bans that no longer matter are forgotten."""
    gate = Gate(STRICT)
    struck(gate, ALICE)
    gate.sweep(199.0)
    assert len(gate.jail) == 1
    gate.sweep(200.0)
    assert len(gate.jail) == 0


@pytest.mark.parametrize("other", [48, 56, 72, 128])
def test_a_client_is_jailed_as_it_was_counted(other: int) -> None:
    """After a change of the IPv6 prefix a ban holds for no client that was not jailed as such.

    It can still be released by its key, and a lease gives back the place of the key that it was taken under.
    """
    gate = Gate(STRICT)
    lease = gate.admit(BOB, "/a", 0.0)
    assert isinstance(lease, Lease)
    struck(gate, BOB)
    again = client("2001:db8::1", other)
    assert gate.peek(again, "/a", 1.0) is None
    assert gate.peek(BOB, "/a", 1.0) == JAILED
    assert gate.jail.release(BOB.key)
    lease.release()
    assert gate.leases.per_address() == {}


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0.0, 20.0),
            st.sampled_from([ALICE, NEIGHBOUR, BOB, client("127.0.0.1"), client("198.51.100.7"), None]),
            st.sampled_from([*FAULTS, *NO_FAULTS]),
        ),
        max_size=80,
    )
)
def test_only_their_own_faults_jail_clients(steps: list[tuple[float, ClientAddress | None, str]]) -> None:
    """A jailed client was refused three times within 10 s through its own fault, and is not exempt."""
    gate, now = Gate(replace(STRICT, allow=CidrSet(["198.51.100.0/24"]))), 0.0
    faults: dict[ClientAddress | None, list[float]] = {}
    for step_s, address, reason in steps:
        now += step_s
        if reason in FAULTS:
            faults.setdefault(address, []).append(now)
        if gate.strike(address, reason, now) is not None:
            assert address in (ALICE, NEIGHBOUR, BOB)
            assert reason in FAULTS
            assert now - faults[address][-3] < 10.0
            assert gate.peek(address, "/a", now) == JAILED
