"""The steps of an explanation, in words, in the order in which a connection meets them. Times are seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from pyryrelay.guard.address.clientip import ClientAddress
from pyryrelay.guard.address.keys import AddressKey, covering_prefix, network_of
from pyryrelay.guard.gate import Gate
from pyryrelay.guard.leases import RESERVED_SHARE, LeaseLimits
from pyryrelay.guard.rate.buckets import Level
from pyryrelay.guard.refusal import Reason, Refusal
from pyryrelay.guard.standing import Range, Standing
from pyryrelay.protocol.explaining import State, level_text, time_text

__all__ = ["TLS_REASONS", "Cluster", "Step", "steps"]

Cluster: TypeAlias = Mapping[str, Any]
"""What is shown of a cluster: see `pyryrelay.cluster.operating.overview`."""

_QUOTAS: Final[Mapping[str, str]] = {
    "tls_quota": "TLS handshakes",
    "tls_prefix_quota": "TLS handshakes of the prefix",
    "upgrade_quota": "upgrades",
    "prefix_quota": "upgrades of the prefix",
    "http_quota": "plain HTTP requests",
}
"""What each quota counts, in the order in which a connection meets them."""
TLS_REASONS: Final[Mapping[str, Reason]] = {
    "tls_quota": Reason.TLS_RATE_LIMIT,
    "tls_prefix_quota": Reason.TLS_PREFIX_RATE_LIMIT,
}
_CAPS: Final[Mapping[Reason, str]] = {
    Reason.GLOBAL_CAP: "all connections",
    Reason.ADDRESS_CAP: "connections",
    Reason.PREFIX_CAP: "connections of the prefix",
    Reason.HANDSHAKE_CAP: "unfinished handshakes",
    Reason.HANDSHAKE_ADDRESS_CAP: "unfinished handshakes",
}
"""The step that each cap belongs to."""


class Step(NamedTuple):
    """One thing that decides about a client: what it is, whether it refuses the client now, and how it stands."""

    what: str
    state: State
    detail: str


def steps(
    gate: Gate, client: ClientAddress, standing: Standing, now: float, cluster: Cluster | None = None
) -> Iterator[Step]:
    """Return what decides about a client."""
    config = gate.config
    yield Step("client", "info", _counted_as(client.key))
    if cluster is not None:
        yield Step("cluster", "info", _cluster(cluster))
    yield from _exemptions(standing)
    yield _jail(gate, standing, now)
    yield _deny_list(standing)
    for name, counted in _QUOTAS.items():
        yield _quota(name, counted, client.key, standing)
    # Caps tell a client to come back, too, but there is no queue for them.
    refusal = next((one for one in standing.refusals.values() if one is not None and one.quota is not None), None)
    if refusal is not None and refusal.retry_after_s is not None:
        detail = f"the next attempt is told to wait {time_text(refusal.retry_after_s)}, behind all that wait already"
        yield Step("waiting", "info", detail)
    yield from _caps(gate, config.limits, standing)


def _counted_as(key: AddressKey) -> str:
    network, prefix = network_of(key), covering_prefix(key)
    alone = "" if prefix == key else f", and with its neighbours as {network_of(prefix)}"
    return f"counted as {network}{alone}"


def _cluster(cluster: Cluster) -> str:
    name, others = cluster["name"], cluster["members"] - 1
    away = next((server for server in cluster["servers"] if server["problem"]), None)
    if away is not None:
        server = f"server {away['name']} of cluster {name}"
        problem = f"cannot be used for {time_text(away['away_s'])} now: {away['problem']}"
        return f"{server} {problem}. Limits hold for this process alone; what it heard before still counts"
    if not cluster["is_secret_shared"]:
        return f"another member of cluster {name} has another secret, so they share nothing (--cluster-secret-file)"
    if others < 1:
        return f"the only member of cluster {name} now: nobody else shares its limits"
    members = "1 other member" if others == 1 else f"{others} other members"
    return f"quotas, the jail and the cap per address are shared with {members} of cluster {name}"


def _exemptions(standing: Standing) -> Iterator[Step]:
    if standing.is_loopback:
        yield Step("loopback", "info", "exempt from the jail")
    if standing.is_proxy:
        detail = "exempt from the jail and from TLS quotas: its clients are counted, not the proxy (--trusted-proxy)"
        yield Step("trusted proxy", "info", detail)
    if standing.allowed is not None:
        detail = f"{_range(standing.allowed)} is allowed (--allow): exempt from the jail, the deny list and quotas"
        yield Step("allow list", "info", detail)


def _is_exempt_from_jail(standing: Standing) -> bool:
    return standing.is_loopback or standing.is_proxy or standing.allowed is not None


def _jail(gate: Gate, standing: Standing, now: float) -> Step:
    config, sentence = gate.config, standing.sentence
    if sentence is not None:
        in_a_row = "by hand" if sentence.times == 0 else f"sentence {sentence.times} in a row"
        in_a_row += f", passed at {sentence.origin}" if sentence.origin else ""
        detail = f"{sentence.network} is jailed for {time_text(sentence.until_s - now)} more, {in_a_row}"
        if _is_exempt_from_jail(standing):
            return Step("jail", "info", f"{detail}, without effect: this client is exempt")
        return Step("jail", "refuses", detail)
    if config.jail is None:
        return Step("jail", "ok", "not jailed; the jail is off (--jail-after)")
    if _is_exempt_from_jail(standing):
        return Step("jail", "ok", "not jailed, and exempt")
    policy = config.jail
    most = f"{policy.refusals} refusals within {time_text(policy.within_s)} (--jail-after)"
    return Step("jail", "ok", f"not jailed; {standing.strikes} of {most}")


def _deny_list(standing: Standing) -> Step:
    if standing.denied is None:
        return Step("deny list", "ok", "not on it (--deny)")
    detail = f"{_range(standing.denied)} is denied (--deny)"
    if standing.allowed is not None:
        return Step("deny list", "info", f"{detail}, without effect: this client is allowed")
    return Step("deny list", "refuses", detail)


def _quota(name: str, counted: str, key: AddressKey, standing: Standing) -> Step:
    """Describe one bucket. Its key is another one where keys share it for want of room."""
    what, option = f"quota of {counted}", f"--{name.replace('_', '-')}"
    of_prefix = name in standing.prefix_levels
    level = standing.prefix_levels[name] if of_prefix else standing.levels[name]
    if level is None:
        return Step(what, "ok", f"off ({option})")
    if standing.allowed is not None:
        return Step(what, "ok", f"exempt ({option})")
    detail = level_text(level, option)
    detail += _sharing(level, covering_prefix(key) if of_prefix else key)
    if name in TLS_REASONS and standing.is_proxy:
        return Step(what, "info", detail)
    return Step(what, "refuses" if level.wait_s else "ok", detail)


def _sharing(level: Level[AddressKey], key: AddressKey) -> str:
    if level.key == key:
        return ""
    return f"; shared with all of {network_of(level.key)}, because there is no room for more buckets (--max-tracked)"


def _caps(gate: Gate, limits: LeaseLimits, standing: Standing) -> Iterator[Step]:
    """Describe what is open, under each cap."""
    leases, held = gate.leases, standing.held
    refusals = [standing.arrival, *standing.refusals.values()]
    reached = {_CAPS[refusal.reason] for refusal in refusals if refusal is not None and refusal.reason in _CAPS}

    def cap(what: str, detail: str) -> Step:
        return Step(what, "refuses" if what in reached else "ok", detail)

    own = f"{held.handshakes} of {limits.max_handshakes_per_address} of this address"
    yield cap("unfinished handshakes", f"{own}, {leases.handshakes} of {limits.max_handshakes} in all")
    most = limits.max_connections
    reserve = f"; the last {int(most * RESERVED_SHARE)} are for addresses that hold few"
    yield cap("all connections", f"{leases.connections} of {most} open (--max-connections){reserve}")
    option = "(--max-connections-per-address)"
    per_address = limits.max_connections_per_address
    of_address = f"{held.connections} of {per_address} open"
    if held.elsewhere:
        of_address = (
            f"{held.connections} open here and {held.elsewhere} at other members of the cluster, of {per_address}"
        )
    yield cap("connections", f"{of_address} {option}")
    per_prefix = limits.max_connections_per_prefix
    of_prefix = f"{held.by_prefix} open, no cap" if per_prefix is None else f"{held.by_prefix} of {per_prefix} open"
    yield cap("connections of the prefix", f"{of_prefix} (--max-connections-per-prefix)")
    for route, refusal in standing.refusals.items():
        yield _route(gate, route, refusal, standing)


def _route(gate: Gate, route: str, refusal: Refusal | None, standing: Standing) -> Step:
    limits, held = gate.config.limits, standing.held.by_route.get(route, 0)
    own, most = limits.max_per_route_and_address.get(route), limits.max_per_route.get(route)
    of_address = f"{held}{'' if own is None else f' of {own}'} of this address"
    in_all = f"{gate.leases.connections_by_route.get(route, 0)}{'' if most is None else f' of {most}'} in all"
    is_full = refusal is not None and (
        refusal.reason == Reason.ROUTE_CAP or (refusal.reason == Reason.ADDRESS_CAP and own is not None and held >= own)
    )
    return Step(f"connections of kind {route}", "refuses" if is_full else "ok", f"{of_address}, {in_all}")


def _range(networks: Range) -> str:
    first, last = networks
    return str(first) if first == last else f"{first} to {last}"
