"""A gate that gets another configuration while it is in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.address.clientip import ClientAddress, client_address
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.errors import GuardError
from pyryrelay.guard.gate import Gate
from pyryrelay.guard.gate_config import GateConfig
from pyryrelay.guard.jail import JailPolicy
from pyryrelay.guard.leases import Lease, LeaseLimits
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.refusal import CAP_RETRY_AFTER_S, Reason, Refusal
from pyryrelay.guard.sharing.leases import SharedLeases

QUOTA, SHARED, ASKED = Quota.parse("1/10s burst 2"), Quota.parse("1/10s burst 3"), Quota.parse("1/10s burst 1")
CONFIG = GateConfig(
    upgrade_quota=QUOTA,
    prefix_quota=SHARED,
    http_quota=ASKED,
    jail=JailPolicy(refusals=2, within_s=10.0, first_s=100.0, longest_s=400.0),
)
FULL_CHANGE = GateConfig(
    upgrade_quota=Quota.parse("5/s"),
    max_tracked=2_000,
    limits=LeaseLimits(max_connections=1),
    deny=CidrSet(["192.0.2.0/24"]),
)


def client(text: str) -> ClientAddress:
    """Return a client address."""
    found = client_address(text)
    assert found is not None
    return found


ALICE, NEIGHBOUR, BOB, CAROL = map(client, ["192.0.2.1", "192.0.2.2", "2001:db8::1", "198.51.100.1"])


def emptied() -> Gate:
    """Return a gate where Alice has no tokens left of any kind."""
    gate = Gate(CONFIG)
    gate.spend(ALICE, 0.0)
    gate.spend(ALICE, 0.0)
    gate.spend(NEIGHBOUR, 0.0)
    gate.request(ALICE, 0.0)
    assert gate.tracked == 4
    return gate


def refused(gate: Gate) -> set[Reason]:
    """Return which quotas refuse: Alice's own, that of her prefix (asked for a neighbour), that of requests."""
    answers = [gate.peek(ALICE, "/a", 0.0), gate.peek(NEIGHBOUR, "/a", 0.0), gate.request(ALICE, 0.0)]
    return {answer.reason for answer in answers if answer is not None}


ALL_THREE = {Reason.RATE_LIMIT, Reason.PREFIX_RATE_LIMIT, Reason.HTTP_RATE_LIMIT}


@pytest.mark.parametrize(
    "change",
    [
        {"limits": LeaseLimits(max_connections=500)},
        {"deny": CidrSet(["203.0.113.0/24"]), "allow": CidrSet(["203.0.113.5"])},
        {"jail": None},
        {"max_tracked": 1_000},
        {"max_tracked": 5_000_000},
        {"upgrade_quota": Quota.parse("1/10s burst 2")},
    ],
)
def test_quotas_that_stay_keep_their_buckets(change: dict[str, object]) -> None:
    """An unchanged quota gives no tokens back, whatever else changes."""
    gate = emptied()
    gate.configure(replace(CONFIG, **change), 0.0)  # type: ignore[arg-type]
    assert refused(gate) == ALL_THREE
    assert gate.tracked == 4


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("upgrade_quota", Reason.RATE_LIMIT),
        ("prefix_quota", Reason.PREFIX_RATE_LIMIT),
        ("http_quota", Reason.HTTP_RATE_LIMIT),
    ],
)
@pytest.mark.parametrize("quota", [None, Quota.parse("2/10s burst 7")])
def test_a_quota_that_changes_starts_full_and_alone(name: str, reason: Reason, quota: Quota | None) -> None:
    """A changed quota starts full, and does not affect the others."""
    gate = emptied()
    gate.configure(replace(CONFIG, **{name: quota}), 0.0)  # type: ignore[arg-type]
    assert reason not in refused(gate)
    assert ALL_THREE - refused(gate) <= {reason}
    gate.configure(CONFIG, 0.0)
    assert refused(gate) >= ALL_THREE - {reason}


def test_new_lists_limits_and_quotas_hold_at_once() -> None:
    """A new configuration applies from the next decision on."""
    gate = emptied()
    gate.configure(replace(CONFIG, upgrade_quota=Quota.parse("1/m")), 0.0)
    gate.admit(BOB, "/a", 0.0)
    assert gate.admit(BOB, "/a", 0.0) == Refusal(429, Reason.RATE_LIMIT, 60.0, Quota.parse("1/m"))
    gate.configure(FULL_CHANGE, 0.0)
    assert gate.config is FULL_CHANGE
    assert gate.peek(ALICE, "/a", 0.0) == Refusal(403, Reason.DENIED, None)
    assert gate.peek(CAROL, "/a", 0.0) == Refusal(503, Reason.GLOBAL_CAP, CAP_RETRY_AFTER_S)
    assert gate.strike(CAROL, "address_cap", 0.0) is gate.strike(CAROL, "address_cap", 0.0) is None


def test_leases_and_bans_are_kept() -> None:
    """Leases and bans are kept, even if the new configuration would not have given them."""
    gate = Gate(CONFIG)
    held = [gate.admit(ALICE, "/a", 0.0), gate.admit(BOB, "/a", 0.0), gate.arrive(BOB, 0.0)]
    gate.strike(CAROL, "address_cap", 0.0)
    gate.strike(CAROL, "address_cap", 0.0)
    gate.configure(FULL_CHANGE, 50.0)
    assert (gate.leases.connections, gate.leases.handshakes) == (2, 1)
    assert gate.peek(CAROL, "/a", 99.0) == Refusal(403, Reason.JAILED, None)
    for lease in held:
        assert isinstance(lease, Lease)
        lease.release()
    assert (gate.leases.connections, gate.leases.handshakes) == (0, 0)
    assert isinstance(gate.admit(CAROL, "/a", 100.0), Lease)


def test_turning_the_jail_off_and_on_forgets_no_past() -> None:
    """Without a policy, what the last one remembered is remembered for as long as it said."""
    config = replace(CONFIG, jail=JailPolicy(refusals=2, within_s=10.0, first_s=1_000.0, longest_s=4_000.0))
    gate = Gate(config)
    gate.strike(CAROL, "address_cap", 0.0)
    gate.strike(CAROL, "address_cap", 0.0)
    gate.configure(replace(config, jail=None), 1_900.0)
    gate.sweep(1_900.0)
    gate.configure(config, 1_950.0)
    gate.strike(CAROL, "address_cap", 1_950.0)
    sentence = gate.strike(CAROL, "address_cap", 1_950.0)
    assert sentence is not None
    assert (sentence.times, sentence.until_s) == (2, 3_950.0)


def test_another_bound_holds_for_every_quota_that_stays() -> None:
    """With less room new clients share at once, and with more they do not."""
    gate = Gate(replace(CONFIG, max_tracked=4_000))
    for number in range(1_500):
        gate.spend(client(f"{number % 190 + 1}.{number // 190}.2.1"), 0.0)
    gate.configure(replace(CONFIG, max_tracked=1_000), 0.0)
    answers = [gate.spend(client(f"203.0.{number}.1"), 0.0) for number in range(3)]
    assert [answer is None for answer in answers] == [True, True, False]
    gate.configure(replace(CONFIG, max_tracked=4_000), 0.0)
    assert gate.spend(BOB, 0.0) is None
    assert gate.spend(client("203.0.3.1"), 0.0) is not None


def test_another_jail_policy_is_followed() -> None:
    """The next ban lasts as long as the new policy says."""
    gate = Gate(CONFIG)
    gate.configure(replace(CONFIG, jail=JailPolicy(refusals=2, first_s=7.0)), 0.0)
    gate.strike(CAROL, "address_cap", 0.0)
    sentence = gate.strike(CAROL, "address_cap", 0.0)
    assert sentence is not None
    assert sentence.until_s == 7.0


def test_what_cannot_be_enforced_changes_nothing() -> None:
    """A configuration that is refused changes nothing."""
    gate = emptied()
    with pytest.raises(GuardError, match="max_tracked 5 "):
        gate.configure(replace(FULL_CHANGE, max_tracked=5), 0.0)
    assert gate.config is CONFIG
    assert gate.leases.limits is CONFIG.limits
    assert refused(gate) == ALL_THREE


CHANGES: list[Callable[[GateConfig], GateConfig]] = [
    lambda config: replace(config, max_tracked=1_000),
    lambda config: replace(config, max_tracked=3_000),
    lambda config: replace(config, http_quota=None),
    lambda config: replace(config, http_quota=Quota.parse("3/s")),
    lambda config: replace(config, jail=None),
    lambda config: replace(config, jail=JailPolicy()),
    lambda config: replace(config, deny=CidrSet(["203.0.113.0/24"])),
    lambda config: replace(config, limits=replace(config.limits, max_handshakes=7)),
]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 10.0, 31.0]) | st.floats(0.0, 40.0),
            st.lists(st.sampled_from([ALICE, NEIGHBOUR, BOB, CAROL]), max_size=5),
            st.none() | st.sampled_from(CHANGES),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_changing_other_things_grants_no_tokens(
    steps: list[tuple[float, list[ClientAddress], Callable[[GateConfig], GateConfig] | None, bool]],
) -> None:
    """Changes of other settings admit no more than the same quotas without them.

    A refused client may be told an earlier time, since a sweep forgets promises that are over.
    """
    gate, other, now = Gate(CONFIG), Gate(CONFIG), 0.0
    for step_s, addresses, change, sweeps in steps:
        now += step_s
        if sweeps:
            gate.sweep(now)
        if change is not None:
            gate.configure(change(gate.config), now)
        for address in addresses:
            answer = gate.admit(address, "/a", now)
            expected = other.admit(address, "/a", now)
            if isinstance(expected, Lease):
                assert isinstance(answer, Lease)
            else:
                assert isinstance(answer, Refusal)
                assert answer.status == expected.status
                assert (answer.retry_after_s or 0.0) <= (expected.retry_after_s or 0.0)
        assert gate.leases.connections == other.leases.connections


def test_patience_follows_the_quota_of_requests() -> None:
    """Without a quota of requests every refusal is a strike, and a new quota has its own allowance."""
    gate = Gate(CONFIG)
    for _ in range(1_000):
        gate.request_by_proxy(ALICE, 0.0)
    gate.configure(replace(CONFIG, http_quota=None), 0.0)
    assert gate.request_by_proxy(ALICE, 0.0) is None
    assert gate.strike(ALICE, "unknown_path", 0.0) is None
    assert gate.strike(ALICE, "unknown_path", 0.0) is not None
    gate.configure(replace(CONFIG, http_quota=Quota.parse("1/s")), 0.0)
    refused = [gate.strike(BOB, "http_rate_limit", 0.0) for _ in range(12)]
    assert [sentence is not None for sentence in refused] == [False] * 11 + [True]


def test_shared_quotas_are_told_of() -> None:
    """Without a listener nothing is shared; with one, a reload's new buckets are shared too, and kept ones stay."""
    quota = Quota.parse("10/minute burst 20")
    config = GateConfig(upgrade_quota=quota, prefix_quota=quota, http_quota=quota, tls_quota=quota)
    assert Gate(config).shared_tables() == {}
    heard: list[str] = []
    gate = Gate(config, lambda: heard.append("news"))
    tables = gate.shared_tables()
    assert list(tables) == ["upgrade", "prefix", "http"]
    gate.admit("192.0.2.1", "/", 0.0)
    assert heard == ["news"] * 2
    assert [table.pending for table in tables.values()] == [1, 1, 0]
    gate.request("192.0.2.1", 0.0)
    assert tables["http"].pending == 1
    gate.configure(replace(config, prefix_quota=Quota.parse("5/minute"), http_quota=None), 1.0)
    after = gate.shared_tables()
    assert list(after) == ["upgrade", "prefix"]
    assert after["upgrade"] is tables["upgrade"]
    assert after["prefix"] is not tables["prefix"]
    gate.admit("192.0.2.9", "/", 1.0)
    assert after["prefix"].pending == 1
    assert isinstance(gate.leases, SharedLeases)
