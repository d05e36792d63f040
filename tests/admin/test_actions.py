"""The actions of the admin API on the jail and the trust policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest
from twisted.internet.defer import Deferred, succeed

from pyryrelay.admin.actions import RelayActions
from pyryrelay.admin.api import JailEntry, ReloadOutcome, UpgradeOutcome
from pyryrelay.guard.address.clientip import TrustPolicy, client_address
from pyryrelay.guard.address.embedded import Nat64Prefix
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.errors import AddressError, GuardError, LimitError
from pyryrelay.guard.gate import Gate
from pyryrelay.guard.gate_config import GateConfig
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.refusal import Reason, Refusal
from pyryrelay.mounts import Settings


@dataclass
class Relay:
    """A gate, a trust policy and a clock, with their actions."""

    now_s: float = 1_000.0
    trust: TrustPolicy = field(default_factory=TrustPolicy)
    settings: Settings = field(default_factory=Settings)
    gate: Gate = field(default_factory=lambda: Gate(GateConfig(allow=CidrSet(["198.51.100.0/24"]))))

    @property
    def actions(self) -> RelayActions:
        return RelayActions(
            self.gate,
            lambda: self.trust,
            self.reload,
            lambda: self.now_s,
            lambda: {"pid": 7},
            settings=lambda: self.settings,
            upgrade=lambda: succeed(UpgradeOutcome(pid=8)),
        )

    def reload(self) -> Deferred[ReloadOutcome]:
        return succeed(ReloadOutcome(("grace",)))

    def peek(self, address: str) -> Refusal | None:
        """Return what the gate says to an address now."""
        return self.gate.peek(client_address(address, self.trust.ipv6_prefix), "/", self.now_s)


def test_a_ban_by_an_operator() -> None:
    """An address that an operator jailed is refused for the given time."""
    relay = Relay()
    assert relay.actions.jail_add(ip_network("192.0.2.7"), 60) == JailEntry("192.0.2.7/32", 60.0, 0)
    refusal = relay.peek("192.0.2.7")
    assert refusal is not None
    assert refusal.reason is Reason.JAILED
    assert relay.peek("192.0.2.8") is None
    relay.now_s += 60
    assert relay.peek("192.0.2.7") is None


def test_an_ipv6_address_stands_for_its_client() -> None:
    """Jailing an IPv6 address jails its prefix, and any address of that releases it."""
    relay = Relay(trust=TrustPolicy(ipv6_prefix=56))
    assert relay.actions.jail_add(ip_network("2001:db8::7"), 60).network == "2001:db8::/56"
    assert relay.peek("2001:db8:0:ff::1") is not None
    assert relay.actions.jail_release(ip_network("2001:db8:0:1::/64")) == "2001:db8::/56"
    assert relay.peek("2001:db8:0:ff::1") is None


@pytest.mark.parametrize("text", ["2001:db8:64::203.0.113.9", "64:ff9b::203.0.113.9", "2002:cb00:7109::1"])
def test_an_address_behind_a_translator_stands_for_its_ipv4_client(text: str) -> None:
    """A NAT64 address is jailed and released as the IPv4 address in it, unless that is private."""
    relay = Relay(trust=TrustPolicy(nat64=(Nat64Prefix.parse("2001:db8:64::/96"),)))
    assert relay.actions.jail_add(ip_network(text), 60).network == "203.0.113.9/32"
    assert relay.peek("203.0.113.9") is not None
    assert relay.actions.jail_release(ip_network(text)) == "203.0.113.9/32"
    assert relay.actions.jail_add(ip_network("2001:db8:64::10.0.0.1"), 60).network == "2001:db8:64::a00:1/128"


def test_bans_without_effect_are_refused() -> None:
    """A network of several clients, an exempt address and an impossible time are errors."""
    relay = Relay(gate=Gate(GateConfig(allow=CidrSet(["198.51.100.0/24"]), jail_exempt=CidrSet(["10.0.0.7"]))))
    for text, problem in (
        ("192.0.2.0/31", "holds more than one client"),
        ("2001:db8::/63", "holds more than one client"),
        ("127.0.0.1", "exempt"),
        ("198.51.100.7", "exempt"),
        ("10.0.0.7", "exempt from the jail: it is a trusted proxy; jail the client behind it"),
    ):
        with pytest.raises(AddressError, match=problem):
            relay.actions.jail_add(ip_network(text), 60)
    with pytest.raises(LimitError):
        relay.actions.jail_add(ip_network("192.0.2.7"), 1e9)
    assert relay.actions.jail_entries(10).total == 0


def test_only_those_who_are_jailed_now_are_listed() -> None:
    """Bans that have ended are not listed, and entries over the limit are counted."""
    relay = Relay()
    for number, seconds in ((1, 10.0), (2, 100.25), (3, 100.25)):
        relay.actions.jail_add(ip_network(f"192.0.2.{number}"), seconds)
    relay.now_s += 10
    listing = relay.actions.jail_entries(1)
    assert listing.total == 2
    assert [(entry.seconds_left, entry.times) for entry in listing.entries] == [(90.25, 0)]
    assert {entry.network for entry in relay.actions.jail_entries(9).entries} == {"192.0.2.2/32", "192.0.2.3/32"}


def test_a_whole_prefix_in_jail_is_listed_and_released_as_that() -> None:
    """An address of a jailed prefix can be released only with the prefix, which the error names."""
    relay = Relay()
    found = client_address("2001:db8:1::1", 48)
    assert found is not None
    relay.gate.jail.add(found.key, 60.0, relay.now_s)
    assert relay.actions.jail_entries(10).entries == [JailEntry("2001:db8:1::/48", 60.0, 0)]
    assert relay.peek("2001:db8:1:2::3") == Refusal(403, Reason.JAILED, None)
    for text in ("2001:db8:1:2::3", "2001:db8:1:2::/64"):
        with pytest.raises(AddressError, match="is jailed with all of its /48: release '2001:db8:1::/48'"):
            relay.actions.jail_release(ip_network(text))
    assert relay.actions.jail_release(ip_network("2001:db8:1::/48")) == "2001:db8:1::/48"
    assert relay.peek("2001:db8:1:2::3") is None


def test_only_jailed_addresses_can_be_released() -> None:
    """Releasing an address that is not jailed, or not any more, is an error."""
    relay = Relay()
    relay.actions.jail_add(ip_network("192.0.2.7"), 60)
    assert relay.actions.jail_release(ip_network("192.0.2.8")) is None
    with pytest.raises(AddressError):
        relay.actions.jail_release(ip_network("192.0.2.0/24"))
    relay.now_s += 60
    assert relay.actions.jail_release(ip_network("192.0.2.7")) is None


def test_a_prefix_of_before_can_be_released() -> None:
    """A client that was jailed under another prefix length can be released by the listed network."""
    relay = Relay(trust=TrustPolicy(ipv6_prefix=48))
    shown = relay.actions.jail_add(ip_network("2001:db8::7"), 60).network
    relay.trust = TrustPolicy(ipv6_prefix=64)
    assert relay.actions.jail_release(ip_network(shown)) == "2001:db8::/48"


def test_explains_by_the_policy_in_force() -> None:
    """The header and the steps are those of the current policy."""
    relay = Relay()
    assert relay.actions.forwarding_header == "x-forwarded-for"
    relay.trust = TrustPolicy(trust_forwarded=True, header="forwarded")
    assert relay.actions.forwarding_header == "forwarded"
    assert "203.0.113.9" in "".join(relay.actions.explain("10.0.0.7", ["for=203.0.113.9"]))


def test_reloading_is_the_callers() -> None:
    """A reload calls the given function."""
    outcomes: list[ReloadOutcome] = []
    Relay().actions.reload().addCallback(outcomes.append)
    assert outcomes == [ReloadOutcome(("grace",))]


def test_the_status_is_that_of_the_relay() -> None:
    """The action is the one that was given."""
    assert Relay().actions.status() == {"pid": 7}


@pytest.mark.parametrize(
    ("text", "network", "address"),
    [
        ("203.0.113.9", "203.0.113.9/32", "203.0.113.9"),
        (" 64:ff9b::203.0.113.9", "203.0.113.9/32", "203.0.113.9"),
        ("2001:db8::7", "2001:db8::/64", "2001:db8::7"),
        ("2001:db8::/64", "2001:db8::/64", "2001:db8::"),
    ],
)
def test_any_form_of_a_client_is_explained(text: str, network: str, address: str) -> None:
    """A client is named by an address or its network, as the jail lists it, on the routes of the settings."""
    found = Relay().actions.explain_client(text)
    assert (found["network"], found["address"], found["verdict"]) == (network, address, "admitted")
    assert "connections of kind server" in str(found["steps"])


@pytest.mark.parametrize("text", ["", "relay.example", "192.0.2.0/24", "192.0.2.7:80"])
def test_what_is_no_client_cannot_be_explained(text: str) -> None:
    """A network of several clients and what is no address are errors."""
    with pytest.raises(GuardError):
        Relay().actions.explain_client(text)


def test_the_settings_in_force() -> None:
    """Settings are those of now, with their sources."""
    relay = Relay(settings=Settings(grace_s=60.0, origins={"grace": "command line"}))
    rows = {row["name"]: row for row in relay.actions.effective_settings()}
    assert rows["--grace"] == {"name": "--grace", "value": "60", "source": "command line"}
    relay.settings = Settings()
    assert {row["source"] for row in relay.actions.effective_settings()} == {"default"}


def test_who_is_known() -> None:
    """A client that has spent a token is, whatever its address is called; several clients are not one."""
    relay = Relay()
    assert not relay.actions.found("192.0.2.7").is_known
    relay.gate.configure(GateConfig(upgrade_quota=Quota.parse("1/hour burst 2")), relay.now_s)
    client = client_address("192.0.2.7")
    assert client is not None
    relay.gate.spend(client, relay.now_s)
    assert relay.actions.found(" 192.0.2.7 ").is_known
    with pytest.raises(GuardError):
        relay.actions.found("192.0.2.0/24")
