"""All that decides about a client, asked for without spending anything."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from pyryrelay.guard.address.clientip import ClientAddress, client_address
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.errors import AddressError
from pyryrelay.guard.gate import Gate
from pyryrelay.guard.gate_config import GateConfig
from pyryrelay.guard.jail import JailPolicy
from pyryrelay.guard.leases import Lease
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.refusal import Reason

ALICE = "192.0.2.1"
CONFIG = GateConfig(
    upgrade_quota=Quota.parse("1/minute burst 2"),
    prefix_quota=Quota.parse("10/minute"),
    http_quota=Quota.parse("5/minute"),
    tls_quota=None,
    jail=JailPolicy(),
    allow=CidrSet("198.51.100.0/24"),
    deny=CidrSet(["203.0.113.0/24", "198.51.100.7"]),
    jail_exempt=CidrSet("10.0.0.7"),
)


def test_a_client_that_is_unknown() -> None:
    """Every bucket is full, nothing is held, and what is off is None."""
    standing = Gate(CONFIG).standing(ALICE, ["/a"], 0.0)
    assert (standing.is_loopback, standing.is_proxy, standing.allowed, standing.denied) == (False, False, None, None)
    assert (standing.sentence, standing.strikes, standing.arrival) == (None, 0, None)
    assert {name: level and level.tokens for name, level in standing.levels.items()} == {
        "upgrade_quota": 2,
        "http_quota": 5,
        "tls_quota": None,
    }
    assert {name: level and level.tokens for name, level in standing.prefix_levels.items()} == {
        "prefix_quota": 10,
        "tls_prefix_quota": None,
    }
    assert standing.refusals == {"/a": None}


def test_whether_an_address_is_known() -> None:
    """A spent token, a connection and a strike are traces; a sentence is in every process of a relay."""
    gate, alice = Gate(CONFIG), client_address(ALICE)
    assert alice is not None
    gate.jail.add(alice.key, 60.0, 0.0)
    assert not gate.standing(ALICE, ["/a"], 0.0).is_known
    gate.jail.release(alice.key)
    lease = gate.admit(ALICE, "/a", 0.0)
    assert isinstance(lease, Lease)
    assert gate.standing(ALICE, ["/a"], 0.0).is_known
    # The connection remains when the bucket is full again.
    assert gate.standing(ALICE, ["/a"], 1e6).is_known
    lease.release()
    assert not gate.standing(ALICE, ["/a"], 1e6).is_known
    gate.strike(alice, Reason.QUEUE_FULL, 1e6)
    assert gate.standing(ALICE, ["/a"], 1e6).is_known


def test_lists_and_exemptions() -> None:
    """The lists that hold a client are told by their ranges, whatever goes first."""
    gate = Gate(CONFIG)
    both = gate.standing("198.51.100.7", (), 0.0)
    assert both.allowed == (IPv4Address("198.51.100.0"), IPv4Address("198.51.100.255"))
    assert both.denied == (IPv4Address("198.51.100.7"), IPv4Address("198.51.100.7"))
    assert both.arrival is None
    denied = gate.standing("203.0.113.9", ["/a"], 0.0).arrival
    assert denied is not None
    assert denied.reason is Reason.DENIED
    assert gate.standing("10.0.0.7", (), 0.0).is_proxy
    assert gate.standing("127.0.0.1", (), 0.0).is_loopback


def test_it_spends_nothing() -> None:
    """However often it is asked for, the gate decides as if it had not been."""
    gate = Gate(CONFIG)
    client = client_address(ALICE)
    assert isinstance(client, ClientAddress)
    for _ in range(2):
        gate.admit(client, "/a", 0.0)
    gate.strike(client, "bad_header", 0.0)
    first = gate.standing(client, ["/a"], 0.0)
    for _ in range(50):
        assert gate.standing(client, ["/a"], 0.0) == first
    refusal = first.refusals["/a"]
    assert refusal == gate.admit(client, "/a", 0.0)
    assert (first.strikes, first.held.connections) == (1, 2)
    assert gate.tracked == 2


def test_the_whole_prefix_in_jail() -> None:
    """A client that is jailed with its /48 has that sentence."""
    gate = Gate(CONFIG)
    prefix = client_address("2001:db8:1::1", 48)
    assert prefix is not None
    sentence = gate.jail.add(prefix.key, 60.0, 0.0)
    standing = gate.standing("2001:db8:1:2::3", (), 0.0)
    assert standing.sentence == sentence
    assert standing.arrival is not None


def test_a_client_without_an_address_has_no_standing() -> None:
    """Only an address can be asked about."""
    with pytest.raises(AddressError):
        Gate(CONFIG).standing(None, (), 0.0)
