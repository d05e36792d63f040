"""Derive what each room enforces from the settings, with one function for each room. PURE.

The start and every reload use the same functions, so that both have the same effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard import CidrSet, GateConfig, JailPolicy, LeaseLimits, Reason, TrustPolicy
from pyryrelay.guard.rate.buckets import MIN_TRACKED
from pyryrelay.refusal_words import NOT_THE_CLIENTS_FAULT, PAID_FROM_HTTP_QUOTA

_FULL: Final = {Reason.RATE_LIMIT: Reason.QUEUE_FULL, Reason.PREFIX_RATE_LIMIT: Reason.PREFIX_QUEUE_FULL}

_LOOPBACK: Final = CidrSet(["127.0.0.0/8", "::1"])
_ANY_ADDRESS: Final = CidrSet(["0.0.0.0/0", "::/0"])
_TRANSLATORS: Final = CidrSet(["64:ff9b::/96", "::ffff:0:0:0/96"])
"""IPv4 clients arrive from these. They are jailed as IPv4 addresses, and their neighbours are other people."""

_HANDSHAKES_PER_ADDRESS: Final = 64
"""Lower bound of the cap on connections of one address that have not sent their request yet."""


def gate_config(settings: SharedSettings, allow: CidrSet, deny: CidrSet) -> GateConfig:
    """Return what the gate of one process enforces. The lists are those of the options and of the files together.

    Caps on all clients are divided among the processes, rounded up, and so is the memory for addresses. What is counted
    per address or network is not, since one process accepts all connections of an address. Nor is the cap on
    handshakes, which protects a process.
    """
    routes, count = settings.routes(), settings.worker_count
    caps = {name: policy.max_connections for name, policy in routes.items()}
    limits = _named_alike(LeaseLimits, settings) | {
        "max_connections": share(settings.max_connections, count),
        # As many clients of an address as may be connected may also reconnect at the same time.
        "max_handshakes_per_address": max(_HANDSHAKES_PER_ADDRESS, settings.max_connections_per_address),
        "max_per_route": {name: share(cap, count) for name, cap in _without_none(caps).items()},
        "max_per_route_and_address": _without_none({name: policy.max_per_address for name, policy in routes.items()}),
    }
    return GateConfig(
        **_named_alike(GateConfig, settings)
        | {
            "limits": LeaseLimits(**limits),
            "max_tracked": max(min(MIN_TRACKED, settings.max_tracked), share(settings.max_tracked, count)),
            "allow": allow.translated(settings.nat64_prefix),
            "deny": deny.translated(settings.nat64_prefix),
            "jail": _jail(settings),
            "jail_exempt": settings.trusted_proxy.networks.translated(settings.nat64_prefix),
            "no_fault_reasons": NOT_THE_CLIENTS_FAULT,
            "http_quota_reasons": PAID_FROM_HTTP_QUOTA,
        }
    )


def share(whole: int, count: int) -> int:
    """Return the part of a bound that each of ``count`` processes has, rounded up."""
    return -(-whole // count)


def _named_alike(config: type[GateConfig | LeaseLimits], settings: SharedSettings) -> dict[str, Any]:
    """Return the fields of a configuration that have the name of an option's field, with the option's value.

    So a new quota or cap of the guard needs an option of the same name, and nothing here.
    """
    # The two lists are handed over together with those of the files.
    options = {option.field for option in settings.options()} - {"allow", "deny"}
    return {field.name: getattr(settings, field.name) for field in fields(config) if field.name in options}


def _without_none(caps: Mapping[str, int | None]) -> dict[str, int]:
    return {name: cap for name, cap in caps.items() if cap is not None}


def _jail(settings: SharedSettings) -> JailPolicy | None:
    after = settings.jail_after
    if after is None:
        return None
    return JailPolicy(after.count, after.period_s, settings.jail_time_s, settings.jail_time_max_s)


def trust_policy(settings: SharedSettings, *, trusts_nobody: bool = False) -> TrustPolicy:
    """Return how client addresses are derived, and which peers may name them: with ``trusts_nobody``, none."""
    if trusts_nobody:
        return TrustPolicy(ipv6_prefix=settings.ipv6_prefix, nat64=settings.nat64_prefix)
    return TrustPolicy(
        trust_forwarded=settings.trust_x_forwarded_for,
        proxies=settings.trusted_proxy.networks,
        trust_unix=settings.trusted_proxy.unix,
        ipv6_prefix=settings.ipv6_prefix,
        header=settings.client_address_header,
        nat64=settings.nat64_prefix,
    )


def dropped_reasons(settings: SharedSettings) -> frozenset[str]:
    """Return the reasons for which connections are dropped without an answer."""
    chosen = settings.refusal
    # A full queue is treated like the exceeded quota that it belongs to, unless the option names it.
    implied = {full.value: chosen[quota] for quota, full in _FULL.items() if quota in chosen}
    answers: dict[str, str] = {Reason.JAILED: "drop", **implied, **chosen}
    return frozenset(reason for reason, answer in answers.items() if answer == "drop")


def drops_in_kernel(settings: SharedSettings) -> bool:
    """Return whether the kernel may drop jailed addresses: clients cannot forge them, and they get no answer."""
    if settings.kernel_drop is not None:
        return settings.kernel_drop
    return not settings.can_clients_forge_addresses and Reason.JAILED in dropped_reasons(settings)


def never_dropped(settings: SharedSettings, allow: CidrSet) -> tuple[CidrSet, ...]:
    """Return the networks that the kernel must let through: all of them where it may drop nothing."""
    if not drops_in_kernel(settings):
        return (_ANY_ADDRESS,)
    translators = _TRANSLATORS | CidrSet(map(str, settings.nat64_prefix))
    return (settings.trusted_proxy.networks, allow.translated(settings.nat64_prefix), _LOOPBACK, translators)


def differences(before: SharedSettings, after: SharedSettings) -> list[str]:
    """Return the names of the options whose values differ, in the order of the reference."""
    return [option.name for option in after.options() if getattr(before, option.field) != getattr(after, option.field)]
