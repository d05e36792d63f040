"""Explaining a client in words: the verdict is what the gate would decide, and asking costs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.admin.explain.explanation import Explanation, explanation
from pyryrelay.guard import CidrSet, Debt, Gate, GateConfig, Lease, LeaseLimits, Quota, Sentence, TrustPolicy
from pyryrelay.guard.address.clientip import ClientAddress
from pyryrelay.guard.jail import JailPolicy
from pyryrelay.guard.sharing.leases import SharedLeases

CONFIG = GateConfig(
    upgrade_quota=Quota.parse("1/minute burst 2"),
    prefix_quota=Quota.parse("10/minute"),
    http_quota=Quota.parse("5/minute"),
    tls_quota=Quota.parse("3/minute"),
    tls_prefix_quota=Quota.parse("100/minute"),
    jail=JailPolicy(),
    allow=CidrSet("198.51.100.0/24"),
    deny=CidrSet(["203.0.113.0/24", "198.51.100.7"]),
    jail_exempt=CidrSet("10.0.0.7"),
    limits=LeaseLimits(max_connections=40, max_per_route={"a": 5}, max_per_route_and_address={"a": 2}),
)
ALICE = "192.0.2.1"


def client(text: str) -> ClientAddress:
    """Return a client address."""
    found = TrustPolicy().read(text)
    assert found is not None
    return found


def explained(gate: Gate, text: str = ALICE, now: float = 0.0, routes: tuple[str, ...] = ("a", "b")) -> Explanation:
    """Return what is said about a client."""
    return explanation(gate, client(text), routes, now)


def refusing(found: Explanation) -> dict[str, str]:
    """Return the steps that refuse."""
    return {step.what: step.detail for step in found.steps if step.state == "refuses"}


def said(found: Explanation, what: str) -> str:
    """Return the detail of a step."""
    return next(step.detail for step in found.steps if step.what == what)


def test_a_client_that_has_done_nothing() -> None:
    """It is admitted, with all its tokens, and the network that it is counted under."""
    found = explained(Gate(CONFIG), "2001:db8:1:2::7")
    assert (found.verdict, found.reason, found.retry_after_s, refusing(found)) == ("admitted", None, None, {})
    assert (found.address, found.network) == ("2001:db8:1:2::7", "2001:db8:1:2::/64")
    assert said(found, "client") == "counted as 2001:db8:1:2::/64, and with its neighbours as 2001:db8:1::/48"
    assert said(found, "jail") == "not jailed; 0 of 60 refusals within 60 s (--jail-after)"
    assert said(found, "quota of upgrades") == "2 of 2 left, 1/minute burst 2 (--upgrade-quota)"
    assert said(found, "connections of kind a") == "0 of 2 of this address, 0 of 5 in all"
    assert said(found, "connections of kind b") == "0 of this address, 0 in all"


def test_it_can_be_sent_as_json() -> None:
    """The body has the keys of the contract, and each step its three."""
    body = explained(Gate(CONFIG)).as_json()
    assert list(body) == [
        *("address", "network", "verdict", "reason", "retry_after_s", "advice", "steps"),
        *("quotas", "connections", "sentence", "cluster"),
    ]
    assert all(list(step) == ["what", "state", "detail"] for step in body["steps"])
    assert json.loads(json.dumps(body)) == body


def test_a_quota_that_is_used_up() -> None:
    """The refusal has the time that the gate would tell, and the step the time until there is a token."""
    gate = Gate(CONFIG)
    for _ in range(2):
        gate.spend(client(ALICE), 0.0)
    gate.refuse(client(ALICE), "a", 0.0)
    found = explained(gate)
    assert (found.verdict, found.reason) == ("refused", "rate_limit")
    assert found.retry_after_s == pytest.approx(120.0)
    assert refusing(found) == {"quota of upgrades": "none left for 60 s, 1/minute burst 2 (--upgrade-quota)"}
    assert said(found, "waiting") == "the next attempt is told to wait 2 min, behind all that wait already"


def test_a_quota_of_tls_handshakes_comes_first() -> None:
    """A client without a token for TLS is refused before anything else, unless it is a proxy or exempt."""
    gate = Gate(CONFIG)
    for text in (ALICE, "10.0.0.7", "198.51.100.1", "127.0.0.1"):
        for _ in range(4):
            gate.handshake(client(text), 0.0)
    found = explained(gate)
    assert (found.verdict, found.reason, found.retry_after_s) == ("refused", "tls_rate_limit", 20.0)
    assert "quota of TLS handshakes" in refusing(found)
    assert explained(gate, "10.0.0.7").verdict == "admitted"
    assert explained(gate, "198.51.100.1").verdict == "exempt"


def test_the_jail() -> None:
    """A jailed client is told how long, by whom, and how to be released; a /48 in jail holds all of it."""
    gate = Gate(CONFIG)
    gate.jail.add(client(ALICE).key, 540.0, 0.0)
    found = explained(gate)
    assert (found.verdict, found.reason, found.retry_after_s) == ("jailed", "jailed", None)
    assert refusing(found) == {"jail": "192.0.2.1/32 is jailed for 9 min more, by hand"}
    assert found.advice == "release it with: pyryrelay jail release 192.0.2.1/32"
    assert found.sentence == {"network": "192.0.2.1/32", "left_s": 540.0, "times": 0, "origin": ""}
    prefix = TrustPolicy(ipv6_prefix=48).read("2001:db8:1::1")
    assert prefix is not None
    gate.jail.add(prefix.key, 90_000_000.0 / 1000, 0.0)
    assert "2001:db8:1::/48 is jailed for 25 h" in refusing(explained(gate, "2001:db8:1:2::3"))["jail"]


def test_a_sentence_by_strikes() -> None:
    """Sentences in a row are counted."""
    gate = Gate(CONFIG)
    for _ in range(60):
        gate.strike(client(ALICE), "bad_header", 0.0)
    assert "sentence 1 in a row" in refusing(explained(gate))["jail"]


@pytest.mark.parametrize(
    ("text", "verdict", "steps"),
    [
        ("203.0.113.9", "denied", {"deny list": "203.0.113.0 to 203.0.113.255 is denied (--deny)"}),
        ("198.51.100.7", "exempt", {}),
        ("10.0.0.7", "admitted", {}),
        ("127.0.0.1", "admitted", {}),
    ],
)
def test_lists_and_exemptions(text: str, verdict: str, steps: dict[str, str]) -> None:
    """The deny list refuses, the allow list goes first, and proxies and loopback are said to be exempt."""
    found = explained(Gate(CONFIG), text)
    assert (found.verdict, refusing(found)) == (verdict, steps)
    if text == "198.51.100.7":
        assert said(found, "deny list") == "198.51.100.7 is denied (--deny), without effect: this client is allowed"
        assert said(found, "quota of upgrades") == "exempt (--upgrade-quota)"
    elif text != "203.0.113.9":
        assert "exempt from the jail" in said(found, {"10.0.0.7": "trusted proxy", "127.0.0.1": "loopback"}[text])


def test_a_sentence_without_effect() -> None:
    """A sentence of an exempt client is told, but does not refuse it."""
    gate = Gate(CONFIG)
    gate.jail.add(client("198.51.100.1").key, 60.0, 0.0)
    found = explained(gate, "198.51.100.1")
    assert found.verdict == "exempt"
    assert said(found, "jail").endswith("without effect: this client is exempt")


def test_what_is_off() -> None:
    """Quotas and a jail that are off are said to be off."""
    off = GateConfig(upgrade_quota=None, limits=LeaseLimits(max_connections_per_prefix=None))
    found = explained(Gate(off))
    assert said(found, "quota of upgrades") == "off (--upgrade-quota)"
    assert said(found, "jail") == "not jailed; the jail is off (--jail-after)"
    assert said(found, "connections of the prefix") == "0 open, no cap (--max-connections-per-prefix)"


def _fill(gate: Gate, route: str, count: int, address: Callable[[int], str]) -> None:
    for number in range(count):
        assert isinstance(gate.admit(client(address(number)), route, 0.0), Lease)


OPEN = replace(CONFIG, upgrade_quota=None, prefix_quota=None)


def test_caps_of_a_route() -> None:
    """A client that one route refuses and another takes is admitted; the step of the full route says so."""
    gate = Gate(OPEN)
    _fill(gate, "a", 2, lambda number: ALICE)
    found = explained(gate)
    assert found.verdict == "admitted"
    assert refusing(found) == {"connections of kind a": "2 of 2 of this address, 2 of 5 in all"} | {
        key: value for key, value in refusing(found).items() if key == "connections"
    }
    assert explained(gate, routes=("a",)).reason == "address_cap"
    _fill(gate, "a", 3, lambda number: f"203.0.{number}.1")
    other = explained(gate, "192.0.3.1", routes=("a",))
    assert (other.verdict, other.reason) == ("refused", "route_cap")
    assert list(refusing(other)) == ["connections of kind a"]


@pytest.mark.parametrize(
    ("limits", "address", "what", "reason"),
    [
        (LeaseLimits(max_connections=3), "10.{}.0.1", "all connections", "global_cap"),
        (LeaseLimits(max_connections_per_address=3), ALICE, "connections", "address_cap"),
        (LeaseLimits(max_connections_per_prefix=3), "192.0.2.{}", "connections of the prefix", "prefix_cap"),
    ],
)
def test_caps_of_all_routes(limits: LeaseLimits, address: str, what: str, reason: str) -> None:
    """Each cap that is reached is the step that refuses."""
    gate = Gate(replace(OPEN, limits=limits))
    _fill(gate, "b", 3, address.format)
    found = explained(gate)
    assert (found.verdict, found.reason, list(refusing(found))) == ("refused", reason, [what])
    assert "waiting" not in [step.what for step in found.steps]


def test_too_many_unfinished_handshakes() -> None:
    """A client that may not even connect is refused for that."""
    gate = Gate(replace(OPEN, limits=LeaseLimits(max_handshakes_per_address=1)))
    gate.arrive(client(ALICE), 0.0)
    found = explained(gate)
    assert found.reason == "handshake_address_cap"
    assert refusing(found) == {"unfinished handshakes": "1 of 1 of this address, 1 of 1024 in all"}


def test_a_bucket_that_is_shared() -> None:
    """Where there is no room for a bucket of its own, the step says with whom it is shared."""
    gate = Gate(GateConfig(max_tracked=1_000))
    for number in range(800):
        gate.spend(client(f"10.{number // 250}.{number % 250}.1"), 0.0)
    assert "shared with all of 192.0.2.0/24, because there is no room" in said(explained(gate), "quota of upgrades")


@given(
    st.lists(st.tuples(st.sampled_from([ALICE, "192.0.2.2", "2001:db8::1", "203.0.113.9"]), st.integers(0, 5))),
    st.floats(0, 300),
)
def test_the_verdict_is_that_of_the_gate(steps: list[tuple[str, int]], now: float) -> None:
    """Whatever has happened, an upgrade now is admitted exactly if the explanation says so; asking changes nothing."""
    gate = Gate(replace(CONFIG, tls_quota=None, tls_prefix_quota=None))
    for text, act in steps:
        one = client(text)
        if act < 3:
            gate.admit(one, "a", 0.0)
        elif act == 3:
            gate.request(one, 0.0)
        else:
            gate.strike(one, "bad_header", 0.0)
    for text in (ALICE, "2001:db8::1", "203.0.113.9"):
        found = explained(gate, text, now, ("a",))
        assert explained(gate, text, now, ("a",)) == found
        answer = gate.admit(client(text), "a", now)
        if isinstance(answer, Lease):
            assert found.verdict == "admitted"
        else:
            assert found.reason == answer.reason
            assert found.retry_after_s == answer.retry_after_s


CLUSTER = {"name": "relay", "members": 3, "is_secret_shared": True, "servers": [], "here": ["10.0.0.1:7000"]}


def test_what_other_members_of_a_cluster_have_spent() -> None:
    """The quota has what they took, what is owed because of that, and until when; the client waits for all of it."""
    gate = Gate(CONFIG, on_change=lambda: None)
    assert gate.spend(client(ALICE), 0.0) is None
    table = gate.shared_tables()["upgrade"]
    table.changes()
    table.absorb_debts([Debt(client(ALICE).key, 240.0)], 0.0)
    found = explanation(gate, client(ALICE), ("a",), 0.0, CLUSTER)
    assert (found.verdict, found.reason, found.cluster) == ("refused", "rate_limit", CLUSTER)
    assert refusing(found) == {
        "quota of upgrades": "none left for 3 min, 1/minute burst 2 (--upgrade-quota); other members of the cluster "
        "have spent 3, so it owes 2: full again in 4 min"
    }
    assert found.quotas[0] == {
        "option": "--upgrade-quota",
        "quota": "1/minute burst 2",
        "network": "192.0.2.1/32",
        "left": 0,
        "wait_s": 180.0,
        "full_s": 240.0,
        "elsewhere": 3,
        "owes": 2,
    }
    assert found.advice is not None
    assert found.advice.startswith("it is admitted once it has waited; to exempt it from quotas")
    assert [quota["option"] for quota in found.quotas] == [
        *("--upgrade-quota", "--http-quota", "--tls-quota", "--prefix-quota", "--tls-prefix-quota")
    ]


def test_what_other_members_of_a_cluster_hold() -> None:
    """Their connections count under the cap per address, which is the step that refuses then."""
    gate = Gate(replace(OPEN, limits=LeaseLimits(max_connections_per_address=8)), on_change=lambda: None)
    assert isinstance(gate.leases, SharedLeases)
    _fill(gate, "b", 5, lambda number: ALICE)
    gate.leases.reports(9)
    gate.leases.heard([(client(ALICE).key, 3)])
    found = explanation(gate, client(ALICE), ("a",), 0.0, CLUSTER)
    assert (found.reason, found.connections) == ("address_cap", {"here": 5, "elsewhere": 3, "most": 8})
    assert refusing(found) == {
        "connections": "5 open here and 3 at other members of the cluster, of 8 (--max-connections-per-address)"
    }


def test_a_sentence_that_another_member_has_passed() -> None:
    """The operator reads which one that was, and that a release reaches it."""
    gate = Gate(CONFIG, on_change=lambda: None)
    gate.jail.absorb([Sentence(client(ALICE).key, 90.0, 2, "10.0.0.2:7000")], 0.0)
    found = explanation(gate, client(ALICE), ("a",), 0.0, CLUSTER)
    assert refusing(found) == {
        "jail": "192.0.2.1/32 is jailed for 90 s more, sentence 2 in a row, passed at 10.0.0.2:7000"
    }
    assert found.sentence is not None
    assert found.sentence["origin"] == "10.0.0.2:7000"
    assert found.advice == (
        "release it with: pyryrelay jail release 192.0.2.1/32, which releases it at all members of the cluster"
    )
