"""Settings into what the rooms enforce: one function for each of them. PURE.

Used at the start and at every reload, so that both mean the same.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from pyryrelay.config.settings import BY_NAME, Settings
from pyryrelay.guard import CidrSet, GateConfig, JailPolicy, LeaseLimits, Reason, ThrottlePolicy, TrustPolicy

_FULL: Final = {Reason.RATE_LIMIT: Reason.QUEUE_FULL, Reason.PREFIX_RATE_LIMIT: Reason.PREFIX_QUEUE_FULL}

RESTART_ONLY: Final = frozenset(
    {"listen", "admin-listen", "proxy-protocol", "jail-file", "kernel-drop", "max-message-bytes"}
)
"""Options that a reload cannot change: what listens, what is open, and what open connections were told."""


_HANDSHAKES_PER_ADDRESS: Final = 64
"""The least cap on connections of one address that have not sent their request."""


def gate_config(settings: Settings, allow: CidrSet, deny: CidrSet) -> GateConfig:
    """What the gate enforces; the lists are those of the options and of the files together."""
    routes = {"server": settings.max_binary_connections, "client": settings.max_phone_connections}
    binaries = settings.max_binaries_per_address
    return GateConfig(
        upgrade_quota=settings.upgrade_quota,
        prefix_quota=settings.prefix_quota,
        http_quota=settings.http_quota,
        tls_quota=settings.tls_quota,
        tls_prefix_quota=settings.tls_prefix_quota,
        max_tracked=settings.max_tracked,
        limits=LeaseLimits(
            max_connections=settings.max_connections,
            max_connections_per_address=settings.max_connections_per_address,
            # All clients of an address that may be connected may also come back at once.
            max_handshakes_per_address=max(_HANDSHAKES_PER_ADDRESS, settings.max_connections_per_address),
            max_connections_per_prefix=settings.max_connections_per_prefix,
            max_per_route={route: cap for route, cap in routes.items() if cap is not None},
            max_per_route_and_address={} if binaries is None else {"server": binaries},
        ),
        allow=allow.translated(settings.nat64_prefix),
        deny=deny.translated(settings.nat64_prefix),
        jail=_jail(settings),
        jail_exempt=settings.trusted_proxy.networks.translated(settings.nat64_prefix),
    )


def _jail(settings: Settings) -> JailPolicy | None:
    after = settings.jail_after
    if after is None:
        return None
    return JailPolicy(after.count, after.period_s, settings.jail_time_s, settings.jail_time_max_s)


def trust_policy(settings: Settings) -> TrustPolicy:
    """Whose word counts about client addresses."""
    return TrustPolicy(
        trust_forwarded=settings.trust_x_forwarded_for,
        proxies=settings.trusted_proxy.networks,
        trust_unix=settings.trusted_proxy.unix,
        ipv6_prefix=settings.ipv6_prefix,
        header=settings.client_address_header,
        nat64=settings.nat64_prefix,
    )


def throttles(settings: Settings) -> tuple[ThrottlePolicy, ThrottlePolicy]:
    """How fast a binary may send, and how fast a phone."""
    pings, timeout_s = settings.ping_quota, settings.excess_timeout_s
    return (
        ThrottlePolicy(settings.binary_frame_quota, settings.binary_byte_quota, pings, timeout_s),
        ThrottlePolicy(settings.frame_quota, settings.byte_quota, pings, timeout_s),
    )


def dropped_reasons(settings: Settings) -> frozenset[str]:
    """The reasons whose refusals are not answered."""
    given = settings.refusal
    # Who does not wait for a token is answered as who does, unless the option says otherwise.
    followed = {full.value: given[quota] for quota, full in _FULL.items() if quota in given}
    answers: dict[str, str] = {Reason.JAILED: "drop", **followed, **given}
    return frozenset(reason for reason, answer in answers.items() if answer == "drop")


def drops_in_kernel(settings: Settings) -> bool:
    """Whether the kernel may drop whoever is jailed: nobody else chose them, and no answer is owed to them."""
    if settings.kernel_drop is not None:
        return settings.kernel_drop
    return not settings.are_peers_forged and Reason.JAILED in dropped_reasons(settings)


def differences(before: Settings, after: Settings) -> list[str]:
    """The names of the options that have another value, in the order of the reference."""
    changed = {field.name for field in fields(Settings) if getattr(before, field.name) != getattr(after, field.name)}
    return [name for name, about in BY_NAME.items() if about.field in changed]
