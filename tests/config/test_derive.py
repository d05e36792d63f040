"""What the rooms enforce, derived from settings: each option has its effect, and its default has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_address
from math import inf
from typing import Any

import pytest
from tests.support.worker_settings import with_workers

from pyryrelay.config.derive import (
    differences,
    dropped_reasons,
    drops_in_kernel,
    gate_config,
    never_dropped,
    trust_policy,
)
from pyryrelay.config.settings import SharedSettings
from pyryrelay.config.sources import Option, options_of
from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import (
    CidrSet,
    GateConfig,
    JailPolicy,
    LeaseLimits,
    Nat64Prefix,
    Quota,
    Reason,
    Throttle,
    ThrottlePolicy,
    TrustPolicy,
    client_address,
)
from pyryrelay.guard.rate.quota import ByteQuota
from pyryrelay.mounts import MountedSettings, Settings
from pyryrelay.pyry.mount import PYRY
from pyryrelay.pyry.options import PyryOptions
from pyryrelay.websocket.reading.read_pause import COUNTED

RESTART_ONLY = {
    *(
        "listen",
        "workers",
        "admin-listen",
        "proxy-protocol",
        "jail-file",
        "kernel-drop",
        "log-format",
        "log-max-bytes",
        "log-keep",
        "max-message-bytes",
        "ping-interval",
    ),
    *("acme", "acme-cache", "acme-directory", "acme-email"),
    *("cluster", "cluster-name", "cluster-secret-file", "cluster-kept-bytes"),
    *("cluster-listen", "cluster-advertise", "cluster-peers", "cluster-on-outage", "cluster-redirect"),
    *(
        "pyry",
        "nostr",
        "nostr-path",
        "nostr-database",
        "nostr-durability",
        "nostr-share-events",
        "nostr-max-message-bytes",
    ),
    *("nostr-readers", "nostr-verifiers", "production", "accept-finding"),
}
NONE = CidrSet()


@dataclass(frozen=True, kw_only=True)
class PyrySettings(PyryOptions, MountedSettings):
    """Settings of a relay that speaks pyry alone."""

    protocols = (PYRY,)


def throttles(settings: Settings) -> tuple[ThrottlePolicy, ThrottlePolicy]:
    """The quotas of a binary's connection, and of a phone's."""
    routes = settings.routes()
    return routes["server"].throttle, routes["client"].throttle


PROXIES = CidrSet(["10.0.0.0/8"])


def test_the_gate_gets_quotas_lists_and_proxies() -> None:
    """The gate enforces the given quotas and lists, and never jails trusted proxies."""
    allow, deny = CidrSet(["192.0.2.0/24"]), CidrSet(["198.51.100.0/24"])
    settings = Settings(
        upgrade_quota=Quota(1, 1.0, 1),
        prefix_quota=Quota(2, 1.0, 2),
        http_quota=None,
        tls_quota=Quota(3, 1.0, 3),
        tls_prefix_quota=Quota(4, 1.0, 4),
        max_tracked=5000,
        trust_x_forwarded_for=True,
        trusted_proxy=TrustedProxies(PROXIES),
    )
    config = gate_config(settings, allow, deny)
    assert (config.upgrade_quota, config.prefix_quota, config.http_quota) == (Quota(1, 1.0, 1), Quota(2, 1.0, 2), None)
    assert (config.tls_quota, config.tls_prefix_quota) == (Quota(3, 1.0, 3), Quota(4, 1.0, 4))
    assert (config.allow, config.deny, config.jail_exempt, config.max_tracked) == (allow, deny, PROXIES, 5000)


def test_the_gate_gets_the_words_of_the_transport() -> None:
    """The words for refusals that are no strikes come from the one list of them."""
    config = gate_config(Settings(), NONE, NONE)
    assert config.no_fault_reasons == {"draining", "owner_unavailable"}
    assert config.http_quota_reasons == {
        "bad_head",
        "bad_method",
        "head_too_large",
        "no_upgrade",
        "unknown_path",
        "wrong_host",
    }


def test_all_clients_of_an_address_may_come_back_at_once() -> None:
    """An address may have as many unfinished handshakes as connections, and never fewer than 64."""
    for connections, handshakes in ((4, 64), (64, 64), (300, 300)):
        limits = gate_config(Settings(max_connections_per_address=connections), NONE, NONE).limits
        assert limits.max_handshakes_per_address == handshakes


def test_the_gate_gets_caps() -> None:
    """A cap that is off is None, and caps on one kind of peer are caps of its route."""
    settings = PyrySettings(
        max_connections=9,
        max_connections_per_address=8,
        max_connections_per_prefix=7,
        max_binary_connections=6,
        max_phone_connections=5,
        max_binaries_per_address=4,
    )
    assert gate_config(settings, NONE, NONE).limits == LeaseLimits(
        max_connections=9,
        max_connections_per_address=8,
        max_connections_per_prefix=7,
        max_per_route={"server": 6, "client": 5},
        max_per_route_and_address={"server": 4},
    )
    off = PyrySettings(max_connections_per_prefix=None, max_binaries_per_address=None)
    assert gate_config(off, NONE, NONE).limits == LeaseLimits()


def test_caps_are_divided_among_workers() -> None:
    """Caps on all clients are divided, rounded up; those of addresses, networks and handshakes are not."""
    settings = PyrySettings(
        max_connections=10,
        max_connections_per_address=8,
        max_connections_per_prefix=7,
        max_binary_connections=6,
        max_phone_connections=1,
        max_binaries_per_address=4,
        max_tracked=10_001,
    )
    config = gate_config(with_workers(4, settings), NONE, NONE)
    assert config.limits == LeaseLimits(
        max_connections=3,
        max_connections_per_address=8,
        max_connections_per_prefix=7,
        max_per_route={"server": 2, "client": 1},
        max_per_route_and_address={"server": 4},
    )
    assert config.max_tracked == 2_501
    assert gate_config(with_workers(4, Settings(max_tracked=1_500)), NONE, NONE).max_tracked == 1_000


def test_the_gate_gets_the_jail() -> None:
    """The jail enforces how often, within which period and for how long; `off` turns it off."""
    settings = Settings(jail_after=Quota(20, 300.0, 20), jail_time_s=60.0, jail_time_max_s=120.0)
    assert gate_config(settings, NONE, NONE).jail == JailPolicy(20, 300.0, 60.0, 120.0)
    assert gate_config(Settings(), NONE, NONE).jail == JailPolicy()
    assert gate_config(Settings(jail_after=None), NONE, NONE).jail is None


def test_defaults_are_enforceable() -> None:
    """The defaults make a gate, and every field of its configuration is set from settings."""
    config = gate_config(Settings(), NONE, NONE)
    assert isinstance(config, GateConfig)
    assert config.http_quota is not None


def test_trust() -> None:
    """Trusted proxies, the header and the prefix length of IPv6 clients become the trust policy."""
    settings = Settings(
        trust_x_forwarded_for=True,
        client_address_header="forwarded",
        trusted_proxy=TrustedProxies(PROXIES, unix=True),
        ipv6_prefix=48,
    )
    assert trust_policy(settings) == TrustPolicy(True, PROXIES, True, 48, "forwarded")
    assert trust_policy(Settings()) == TrustPolicy()


def test_throttles() -> None:
    """Binaries and phones have quotas of their own, and share the quota of pings."""
    frames, pings, size = Quota(1, 1.0, 1), Quota(2, 1.0, 2), ByteQuota(1024, 1.0, 1024)
    settings = Settings(
        binary_frame_quota=frames, byte_quota=size, frame_quota=None, ping_quota=pings, excess_timeout_s=60.0
    )
    assert throttles(settings) == (
        ThrottlePolicy(frames=frames, pings=pings, excess_timeout_s=60.0),
        ThrottlePolicy(bytes=size, pings=pings, excess_timeout_s=60.0),
    )
    assert [policy.excess_timeout_s for policy in throttles(Settings(excess_timeout_s=None))] == [None, None]


def test_two_large_uploads_owe_nothing() -> None:
    """Two files of 16 MiB, each 373 frames and 31 MiB on the wire, pass without a pause; a third waits briefly."""
    _, policy = throttles(Settings())
    throttle = Throttle(policy, COUNTED)
    for _ in range(2):
        assert throttle.charge((373, 31 * 1024 * 1024, 0), 0.0) == 0.0
    for _ in range(3):
        wait_s = throttle.charge((373, 31 * 1024 * 1024, 0), 0.0)
    assert 0.0 < wait_s < 30.0
    assert throttle.times_out_at_s == inf


@pytest.mark.parametrize(
    ("refusal", "dropped"),
    [
        ({}, {"jailed"}),
        ({"unknown_path": "drop"}, {"jailed", "unknown_path"}),
        ({"rate_limit": "drop"}, {"jailed", "rate_limit", "queue_full"}),
        ({"prefix_rate_limit": "drop", "prefix_queue_full": "answer"}, {"jailed", "prefix_rate_limit"}),
        ({"queue_full": "drop"}, {"jailed", "queue_full"}),
        ({"jailed": "answer", "denied": "drop", "rate_limit": "answer"}, {"denied"}),
    ],
)
def test_dropped_reasons(refusal: dict[str, str], dropped: set[str]) -> None:
    """Jailed addresses are dropped and all others are answered, unless ``--refusal`` says otherwise."""
    assert dropped_reasons(Settings(refusal=refusal)) == dropped
    assert Reason.JAILED in dropped_reasons(Settings())


# Who reads what

DERIVED: Mapping[str, Callable[[Settings], object]] = {
    "gate": lambda settings: gate_config(settings, NONE, NONE),
    "trust": trust_policy,
    "refusals": dropped_reasons,
    "kernel": drops_in_kernel,
}
SHARED = {
    "workers": {"gate"},
    "trust-x-forwarded-for": {"trust", "kernel"},
    "trusted-proxy": {"gate", "trust"},
    "nat64-prefix": {"gate", "trust"},
    "refusal": {"refusals", "kernel"},
    "listen": {"kernel"},
}
"""Options that several rooms need, and one that a room needs besides the listeners."""
READ_DIRECTLY = {
    *("admin-token-file", "admin-host", "allow", "deny", "allow-file", "deny-file", "certificate", "host"),
    *("drain-over", "log-client-address"),
}
"""Options that a reload hands over as they are: lists, which files belong to, and what single rooms read."""


class Recording(Settings):
    """Settings that note which options are read."""

    def __getattribute__(self, name: str) -> Any:
        read: set[str] = super().__getattribute__("__dict__").setdefault("read", set())
        read.add(name)
        return super().__getattribute__(name)


def readers_of(option: Option) -> set[str]:
    """Return which derivations read an option."""
    readers = set()
    for name, derive in DERIVED.items():
        settings = Recording()
        settings.__dict__["read"].clear()
        derive(settings)
        if option.field in settings.__dict__["read"]:
            readers.add(name)
    return readers


@pytest.mark.parametrize("option", options_of(SharedSettings), ids=lambda option: option.name)
def test_each_option_has_its_place(option: Option) -> None:
    """A shared option that a reload changes is derived in one place, unless more than one room enforces it."""
    readers = readers_of(option)
    if option.name in SHARED:
        assert readers == SHARED[option.name]
    elif option.name in READ_DIRECTLY or (option.restart and option.name != "kernel-drop"):
        assert readers == set()
    else:
        assert len(readers) == 1


def test_differences() -> None:
    """Options whose values differ are named in the order of the reference, whatever their sources."""
    assert differences(Settings(), Settings(origins={"grace": "command line"})) == []
    assert differences(Settings(), Settings(max_phones=3, grace_s=1.0, deny=PROXIES)) == ["deny", "max-phones", "grace"]


def test_what_needs_a_restart_exists() -> None:
    """Every name in the list of restart-only options is an option, and every field but one is an option."""
    assert {option.name for option in Settings.options() if option.restart} == RESTART_ONLY
    assert {field.name for field in fields(Settings)} - {option.field for option in Settings.by_name().values()} == {
        "origins"
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), True),
        (Settings(kernel_drop=False), False),
        (Settings(trust_x_forwarded_for=True), False),
        (Settings(trust_x_forwarded_for=True, trusted_proxy=TrustedProxies(PROXIES)), True),
        (Settings(listen=("tcp:1", "haproxy:tcp:2")), False),
        (Settings(refusal={"jailed": "answer"}), False),
        (Settings(kernel_drop=True), True),
        (Settings(refusal={"bad_head": "drop"}), True),
    ],
)
def test_when_the_kernel_drops(settings: Settings, expected: bool) -> None:
    """By default the kernel drops where clients cannot forge addresses and need no answer; the option overrides."""
    assert drops_in_kernel(settings) is expected


def test_translators_of_the_operator() -> None:
    """Lists and proxies written in the form of a NAT64 translator mean the IPv4 addresses inside."""
    prefixes = (Nat64Prefix.parse("2001:db8:64::/96"),)
    network = CidrSet(["2001:db8:64::198.51.100.0/120"])
    settings = Settings(
        trust_x_forwarded_for=True, trusted_proxy=TrustedProxies(network), nat64_prefix=prefixes, jail_file=""
    )
    config, trust = gate_config(settings, network, network), trust_policy(settings)
    for found in (config.allow, config.deny, config.jail_exempt, trust.proxies):
        assert list(map(str, found)) == ["198.51.100.0/24"]
    assert trust.derive("2001:db8:64::203.0.113.9", []) == client_address("203.0.113.9")


def test_the_kernel_never_drops_exempt_networks() -> None:
    """Trusted proxies, allowed networks, loopback and translators are let through, in translated form, too."""
    prefix = Nat64Prefix.parse("2001:db8:64::/96")
    settings = Settings(
        trust_x_forwarded_for=True, trusted_proxy=TrustedProxies(PROXIES), nat64_prefix=(prefix,), kernel_drop=True
    )
    proxies, allowed, loopback, translators = never_dropped(settings, CidrSet(["2001:db8:64::c000:200/120"]))
    assert proxies == PROXIES
    assert allowed == CidrSet(["192.0.2.0/24"])
    assert ip_address("127.0.0.9") in loopback
    assert {str(prefix), "64:ff9b::/96"} <= set(map(str, translators))


def test_the_kernel_drops_nothing_where_it_may_not() -> None:
    """If clients can have others jailed, the kernel lets every network through."""
    (everything,) = never_dropped(Settings(trust_x_forwarded_for=True), NONE)
    assert all(ip_address(text) in everything for text in ("192.0.2.1", "2001:db8::1"))
