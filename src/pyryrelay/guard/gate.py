"""The gate: the one place that says yes or no to a client.

It is asked at three depths of a connection's life, with the same answer at each:

* `Gate.arrive` when a socket was accepted: may it stay while it sends its request? `Gate.peek_arrival` says what it
  would answer, and takes no place.
* `Gate.peek` when the client address is known: would it be admitted? Costs nothing. `Gate.refuse` is the same question
  about an attempt that ends with the refusal: it then costs what `admit` would have taken.
* `Gate.admit` when the upgrade is due: the authority, which spends exactly one token and hands out the lease.

An attempt that is refused for another reason (a bad header, say) still was an attempt: `Gate.spend` takes its
token. A request that is no attempt to upgrade has a quota of its own: `Gate.request`, or `Gate.request_by_proxy` where
its client cannot be read. So has a TLS handshake, which is paid for before it begins: `Gate.handshake`. Who leaves
before there is a request to judge is told of by `Gate.left`.

Rules are checked in this order: attributable at all (429), jail and deny list (403), quota of the address and of its
prefix (429), caps that are everybody's (503), caps of the address and of its prefix (429). The allow list exempts
from jail, deny list and quotas, never from caps; loopback and `GateConfig.jail_exempt` are exempt from the jail alone.
Attempts without an address, jailed and denied ones spend nothing; an attempt that passes the quotas and meets a cap
has spent its token.

A client that finds no token is told when there will be one for it behind all clients that wait already (see
`promises`), so that clients which wait as long as they are told come in whatever their number. There are as many places
to wait as an address, or its prefix, may have connections. Refusals beyond that (`Reason.QUEUE_FULL`) go to clients
that come again before their time; other refusals by a quota of attempts are nobody's fault.

None of these count or strike. The caller that refuses a client calls `Gate.strike` with the reason, once, so a refusal
that was found early and one that was found late lead to the jail alike.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address
from math import ceil, inf
from types import NoneType
from typing import TYPE_CHECKING, Final, NamedTuple

from pyryrelay.guard.address.clientip import ClientAddress, client_address
from pyryrelay.guard.address.keys import ADDRESS_LADDER, AddressKey, covering_prefix
from pyryrelay.guard.address.lists import CidrSet, IPAddress
from pyryrelay.guard.errors import AddressError, CidrError, LimitError, QuotaSyntaxError
from pyryrelay.guard.jail import Jail, JailPolicy, Sentence
from pyryrelay.guard.jitter import Jitter
from pyryrelay.guard.leases import CapReason, Lease, LeaseLimits, Leases
from pyryrelay.guard.rate.buckets import SWEEP_SLICE, Buckets
from pyryrelay.guard.rate.gcra import RESOLUTION_S
from pyryrelay.guard.rate.quota import MAX_COUNT, Quota
from pyryrelay.guard.rate.reservations import LATEST_S
from pyryrelay.guard.rate.tables import ShardedDict, SortedTable, Table

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CAP_RETRY_AFTER_S", "Client", "Gate", "GateConfig", "Reason", "Refusal"]

Client = ClientAddress | IPAddress | str | None
"""How callers name a client: as `client_address` or `TrustPolicy.derive` read it, by an address or its text.

None is a client that nobody can name.
"""

_READY: Final = (ClientAddress, NoneType)

CAP_RETRY_AFTER_S: Final = 5.0
"""When to try again after a cap: nobody can know when a place will be free, so soon but not at once."""

LEAVING: Final = Quota(60, 60.0, 60)
"""How often an address may connect and leave without a request: load balancers look after us once a second."""


PATIENCE: Final = 10
"""Requests that ask for no upgrade lead to the jail only so many times over their quota."""


class Reason(StrEnum):
    """Why a client was refused; the values are metric labels."""

    RATE_LIMIT = "rate_limit"
    PREFIX_RATE_LIMIT = "prefix_rate_limit"
    QUEUE_FULL = "queue_full"
    PREFIX_QUEUE_FULL = "prefix_queue_full"
    HTTP_RATE_LIMIT = "http_rate_limit"
    TLS_RATE_LIMIT = "tls_rate_limit"
    TLS_PREFIX_RATE_LIMIT = "tls_prefix_rate_limit"
    UNATTRIBUTABLE = "unattributable"
    JAILED = "jailed"
    DENIED = "denied"
    GLOBAL_CAP = "global_cap"
    ROUTE_CAP = "route_cap"
    ADDRESS_CAP = "address_cap"
    PREFIX_CAP = "prefix_cap"
    HANDSHAKE_CAP = "handshake_cap"
    HANDSHAKE_ADDRESS_CAP = "handshake_address_cap"


class Refusal(NamedTuple):
    """A no, as HTTP says it: `status` 403, 429 or 503, and when to come back (None: do not).

    `quota` is the one that was exceeded, for the fields that tell a client about it.
    """

    status: int
    reason: Reason
    retry_after_s: float | None
    quota: Quota | None = None

    @property
    def phrase(self) -> str:
        """The reason phrase of the status line, such as ``Too Many Requests``."""
        return HTTPStatus(self.status).phrase

    def with_jitter(self, jitter: Jitter, fraction: float) -> Refusal:
        """The same refusal with a longer wait, if it has one; `fraction` is your random number, between 0 and 1."""
        wait_s = self.retry_after_s
        return self if wait_s is None else self._replace(retry_after_s=jitter.added_to(wait_s, fraction))

    @property
    def quota_name(self) -> str:
        """What the exceeded quota is called, whether there was room to wait for it or not."""
        return _QUOTA_NAMES.get(self.reason, self.reason)

    @property
    def retry_after_whole_s(self) -> int | None:
        """When to come back in whole seconds, rounded up, at least 1; None for never."""
        wait_s = self.retry_after_s
        return None if wait_s is None or wait_s == inf else max(1, _whole_s(wait_s))

    @property
    def retry_after_header(self) -> str | None:
        """The value of ``Retry-After`` (RFC 9110 section 10.2.3)."""
        whole_s = self.retry_after_whole_s
        return None if whole_s is None else str(whole_s)


_QUOTA_NAMES: Final = {Reason.QUEUE_FULL: "rate_limit", Reason.PREFIX_QUEUE_FULL: "prefix_rate_limit"}


def _whole_s(wait_s: float) -> int:
    # Half a resolution of rounding error must not turn 6 s into 7; the bucket forgives a whole one.
    return ceil(wait_s - RESOLUTION_S / 2)


@dataclass(frozen=True, slots=True)
class GateConfig:
    """What a gate enforces; None turns a quota off.

    `upgrade_quota`, `http_quota` and `tls_quota` are per client address, `prefix_quota` and `tls_prefix_quota` are for
    a whole /24 or /48. `max_tracked` bounds the addresses, or prefixes, remembered for each of them.
    `jail` None jails nobody any more; who is jailed already stays so. `jail_exempt` are never jailed, and have no other
    privilege: name the proxies here.

    What you refuse for reasons of your own is a strike, unless the reason is in `no_fault_reasons`: it is not the
    client's fault. Those in `http_quota_reasons` are for requests that have had a token of `http_quota` before they are
    refused; while there is that quota, they are no strikes either.
    """

    upgrade_quota: Quota | None = field(default_factory=lambda: Quota.parse("10/minute burst 20"))
    prefix_quota: Quota | None = None
    http_quota: Quota | None = None
    tls_quota: Quota | None = None
    tls_prefix_quota: Quota | None = None
    max_tracked: int = 1_000_000
    limits: LeaseLimits = field(default_factory=LeaseLimits)
    allow: CidrSet = field(default_factory=CidrSet)
    deny: CidrSet = field(default_factory=CidrSet)
    jail: JailPolicy | None = None
    jail_exempt: CidrSet = field(default_factory=CidrSet)
    no_fault_reasons: frozenset[str] = frozenset()
    http_quota_reasons: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse texts, which would fail at the first client. Raises `GuardError`."""
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, str):
                continue
            if one.name.endswith("quota"):
                raise QuotaSyntaxError(f"{one.name} {value!r} is a text: write Quota.parse({value!r})")
            if one.name.endswith("reasons"):
                raise LimitError(f"{one.name} {value!r} is a text: write frozenset({{{value!r}}})")
            raise CidrError(f"{one.name} {value!r} is a text: write CidrSet({value!r})")


_UNATTRIBUTABLE: Final = Refusal(429, Reason.UNATTRIBUTABLE, CAP_RETRY_AFTER_S)
_JAILED: Final = Refusal(403, Reason.JAILED, None)
_DENIED: Final = Refusal(403, Reason.DENIED, None)
_CAP_REFUSALS: Final = {
    CapReason.GLOBAL_CONNECTIONS: Refusal(503, Reason.GLOBAL_CAP, CAP_RETRY_AFTER_S),
    CapReason.ROUTE_CONNECTIONS: Refusal(503, Reason.ROUTE_CAP, CAP_RETRY_AFTER_S),
    CapReason.ADDRESS_CONNECTIONS: Refusal(429, Reason.ADDRESS_CAP, CAP_RETRY_AFTER_S),
    CapReason.PREFIX_CONNECTIONS: Refusal(429, Reason.PREFIX_CAP, CAP_RETRY_AFTER_S),
    CapReason.GLOBAL_HANDSHAKES: Refusal(503, Reason.HANDSHAKE_CAP, CAP_RETRY_AFTER_S),
    CapReason.ADDRESS_HANDSHAKES: Refusal(429, Reason.HANDSHAKE_ADDRESS_CAP, CAP_RETRY_AFTER_S),
}
# A cap that neighbours have reached is theirs; whoever hammers at it runs out of tokens, and then of places to wait for
# one, which is a strike. So it is for the quota of the prefix: who waits for that takes a place of the address too.
_NOT_THE_CLIENTS_FAULT: Final = frozenset(
    {
        Reason.RATE_LIMIT,
        Reason.PREFIX_RATE_LIMIT,
        Reason.GLOBAL_CAP,
        Reason.ROUTE_CAP,
        Reason.PREFIX_CAP,
        Reason.HANDSHAKE_CAP,
        Reason.JAILED,
    }
)


def named(client: object) -> ClientAddress:
    """Read a client; clients of IPv6 are their /64. Raises `AddressError` for what is no address."""
    found = client_address(str(client)) if isinstance(client, str | IPv4Address | IPv6Address) else None
    if found is None:
        raise AddressError(
            f"{client!r} is no client: give an address such as '192.0.2.7', what client_address or TrustPolicy.derive "
            "returns, or None for a client that nobody can name"
        )
    return found


class Gate:
    """Admission control for one server. See the module's docstring for the rules and their order.

    `leases` and `jail` show what is held; `swept_s` is when `sweep` was
    called last. Clients are named by what `TrustPolicy.derive` or `client_address` returns, or by an address or its
    text; whatever is asked about anything else raises `AddressError`. Raises `GuardError` if the
    configuration cannot be enforced.
    """

    def __init__(self, config: GateConfig | None = None) -> None:
        """Start with nobody inside and every bucket full."""
        self._enforce(GateConfig() if config is None else config)
        self.leases = Leases(self.config.limits)
        self.jail = Jail(self.config.jail or JailPolicy())
        self._upgrades = self._buckets(self.config.upgrade_quota)
        self._prefixes = self._buckets(self.config.prefix_quota, SortedTable)
        self._requests = self._buckets(self.config.http_quota)
        self._unread = self._buckets(self.config.http_quota)
        self._patience = self._buckets(_patience(self.config.http_quota))
        self._handshakes = self._buckets(self.config.tls_quota)
        self._handshakes_by_prefix = self._buckets(self.config.tls_prefix_quota, SortedTable)
        self.swept_s = -inf
        self._leaves = Buckets(LEAVING, self.config.max_tracked, ADDRESS_LADDER, ShardedDict)

    def _enforce(self, config: GateConfig) -> None:
        self.config = config
        # Most lists are empty, and every attempt would ask them several times.
        self._has_allowed, self._has_denied = bool(config.allow), bool(config.deny)
        self._no_strikes = _NOT_THE_CLIENTS_FAULT | config.no_fault_reasons
        if config.http_quota is not None:
            self._no_strikes |= config.http_quota_reasons

    def _buckets(
        self, quota: Quota | None, new_table: Callable[[], Table[AddressKey, float]] = ShardedDict
    ) -> Buckets[AddressKey] | None:
        if quota is None:
            return None
        return Buckets(quota, self.config.max_tracked, ADDRESS_LADDER, new_table, ShardedDict)

    def reconfigure(self, config: GateConfig, now: float) -> None:
        """Enforce another configuration from now on. Nobody who is inside is put out.

        A quota that is the same keeps its buckets, whatever their bound; one that is new starts with full ones. Raises
        `GuardError`, and changes nothing, if the configuration cannot be enforced.
        """
        fresh = Gate(config)
        self._enforce(config)
        self.leases.limits = config.limits
        if config.jail is not None:
            self.jail.reconfigure(config.jail, now)
        self._upgrades = _carried_over(self._upgrades, fresh._upgrades)
        self._prefixes = _carried_over(self._prefixes, fresh._prefixes)
        self._requests = _carried_over(self._requests, fresh._requests)
        self._unread = _carried_over(self._unread, fresh._unread)
        self._patience = _carried_over(self._patience, fresh._patience)
        self._handshakes = _carried_over(self._handshakes, fresh._handshakes)
        self._handshakes_by_prefix = _carried_over(self._handshakes_by_prefix, fresh._handshakes_by_prefix)
        self._leaves.resize(config.max_tracked)

    @property
    def tracked(self) -> int:
        """Number of keys that take memory; a gauge."""
        return sum(map(len, self._all_buckets()))

    def _all_buckets(self) -> list[Buckets[AddressKey]]:
        own = (self._upgrades, self._requests, self._unread, self._patience, self._handshakes)
        shared = (self._prefixes, self._handshakes_by_prefix)
        return [buckets for buckets in (*own, *shared, self._leaves) if buckets is not None]

    def arrive(self, address: Client, now: float) -> Lease | Refusal:
        """Let a connection that was just accepted stay until it is upgraded, or refuse it.

        `address` is the peer's own; None stands for a trusted proxy or a UNIX socket, which counts only
        globally. Spends no token.
        """
        if not isinstance(address, _READY):
            address = named(address)
        if address is not None and (refusal := self._shut_out(address, now)) is not None:
            return refusal
        taken = self.leases.take_handshake(None if address is None else address.key)
        return _CAP_REFUSALS[taken] if isinstance(taken, CapReason) else taken

    def peek_arrival(self, address: Client, now: float) -> Refusal | None:
        """Return the refusal that `arrive` would give now, or None. Changes nothing."""
        if not isinstance(address, _READY):
            address = named(address)
        if address is None:
            cap = self.leases.would_refuse_handshake(None)
        elif (refusal := self._shut_out(address, now)) is not None:
            return refusal
        else:
            cap = self.leases.would_refuse_handshake(address.key)
        return None if cap is None else _CAP_REFUSALS[cap]

    def peek(self, address: Client, route: str, now: float) -> Refusal | None:
        """Return the refusal that `admit` would give now, or None. Changes nothing."""
        if not isinstance(address, _READY):
            address = named(address)
        if address is None:
            return _UNATTRIBUTABLE
        refusal = self._shut_out(address, now) or self._over_quota(address, now)
        if refusal is not None:
            return refusal
        cap = self.leases.would_refuse_connection(address.key, route)
        return None if cap is None else _CAP_REFUSALS[cap]

    def spend(self, address: Client, now: float) -> Refusal | None:
        """Take the token of an attempt that is refused for another reason. Takes no lease and looks at no cap.

        Returns the refusal if the attempt had no token to spend: that one goes first.
        """
        if not isinstance(address, _READY):
            address = named(address)
        if address is None:
            return _UNATTRIBUTABLE
        refusal = self._shut_out(address, now) or self._over_quota(address, now, reservations=True)
        if refusal is None:
            self._take_token(address, now)
        return refusal

    def refuse(self, address: Client, route: str, now: float) -> Refusal | None:
        """Refuse an attempt as `admit` would: who meets a cap has spent its token. None, and nothing spent, otherwise.

        The same as `peek`, and `spend` if that refuses, for less.
        """
        if not isinstance(address, _READY):
            address = named(address)
        if address is None:
            return _UNATTRIBUTABLE
        refusal = self._shut_out(address, now) or self._over_quota(address, now, reservations=True)
        if refusal is not None:
            return refusal
        cap = self.leases.would_refuse_connection(address.key, route)
        if cap is None:
            return None
        self._take_token(address, now)
        return _CAP_REFUSALS[cap]

    def admit(self, address: Client, route: str, now: float) -> Lease | Refusal:
        """Spend one token and take a place on `route`, or say why not. The lease is the caller's to release."""
        if not isinstance(address, _READY):
            address = named(address)
        if address is None:
            return _UNATTRIBUTABLE
        refusal = self.spend(address, now)
        if refusal is not None:
            return refusal
        taken = self.leases.take_connection(address.key, route)
        return _CAP_REFUSALS[taken] if isinstance(taken, CapReason) else taken

    def request(self, address: Client, now: float) -> Refusal | None:
        """Spend the token of a request that asks for no upgrade, or say why not."""
        if not isinstance(address, _READY):
            address = named(address)
        if self._requests is None:
            return None if address is None else self._shut_out(address, now)
        if address is None:
            return _UNATTRIBUTABLE
        refusal = self._shut_out(address, now)
        if refusal is not None or self._allowed(address):
            return refusal
        decision = self._requests.spend(address.key, now)
        if decision.allowed:
            return None
        return Refusal(429, Reason.HTTP_RATE_LIMIT, decision.retry_after_s, self._requests.quota)

    def request_by_proxy(self, proxy: ClientAddress | None, now: float) -> Refusal | None:
        """Spend the token of a request whose client cannot be read, only its proxy (None on a UNIX socket), or say no.

        Such requests have buckets of their own, so that nobody can spend what the proxy's own requests need.
        """
        if self._unread is None:
            return None
        decision = self._unread.spend(0 if proxy is None else proxy.key, now)
        if decision.allowed:
            return None
        return Refusal(429, Reason.HTTP_RATE_LIMIT, decision.retry_after_s, self._unread.quota)

    def handshake(self, address: Client, now: float) -> Refusal | None:
        """Spend the tokens of a TLS handshake that is about to begin, or say why not.

        Nobody could be told when to come back, so the quotas are for the cost of handshakes alone:
        `GateConfig.jail_exempt` and those without an address are exempt, beside the allow list.
        """
        if not isinstance(address, _READY):
            address = named(address)
        if address is None or self._allowed(address) or address in self.config.jail_exempt:
            return None
        own, shared, key = self._handshakes, self._handshakes_by_prefix, address.key
        if own is not None and (wait_s := own.wait_s(key, now)):
            return Refusal(429, Reason.TLS_RATE_LIMIT, wait_s, own.quota)
        if shared is not None and not (decision := shared.spend(covering_prefix(key), now)).allowed:
            return Refusal(429, Reason.TLS_PREFIX_RATE_LIMIT, decision.retry_after_s, shared.quota)
        if own is not None:
            own.spend(key, now)
        return None

    def left(self, address: Client, now: float) -> bool:
        """Note that a connection ended before there was a request; whether its address does that too often.

        Now and then anybody may: browsers connect ahead of time, and load balancers see whether we are there.
        """
        if not isinstance(address, _READY):
            address = named(address)
        if address is None or self._exempt(address):
            return False
        return not self._leaves.spend(address.key, now).allowed

    def strike(self, address: Client, reason: str, now: float) -> Sentence | None:
        """A client was refused for `reason` (the guard's or the caller's own); the sentence if that was once too often.

        What is nobody's or the server's own fault is no strike, and neither is what exempt addresses do. Requests that
        ask for no upgrade are strikes far beyond their quota only: a page in somebody's browser may have sent them.
        """
        if not isinstance(address, _READY):
            address = named(address)
        if address is None or self.config.jail is None or reason in self._no_strikes or self._exempt(address):
            return None
        # Neighbours have filled that queue, and a client that hammers at it fills its own as well. One that comes from
        # another address of its /48 each time does not: these strikes are what jails the /48.
        if reason == Reason.PREFIX_QUEUE_FULL and self._upgrades is not None and isinstance(address.ip, IPv4Address):
            return None
        patience = self._patience if reason == Reason.HTTP_RATE_LIMIT else None
        if patience is not None and patience.spend(address.key, now).allowed:
            return None
        # Nobody who waits as long as it is told is refused beyond the queue, so few such refusals are enough.
        return self.jail.strike(address.key, now, self.jail.tenth if reason == Reason.QUEUE_FULL else 1)

    def sweep(self, now: float) -> None:
        """Forget what no longer matters, a slice at a time. Call it about once a second."""
        self.swept_s = now
        tables = self._all_buckets()
        share = SWEEP_SLICE // max(1, sum(map(bool, map(len, tables))))
        for buckets in tables:
            buckets.sweep(now, share)
        self.jail.sweep(now)

    def _exempt(self, address: ClientAddress) -> bool:
        return address.is_loopback or self._allowed(address) or address in self.config.jail_exempt

    def _allowed(self, address: ClientAddress) -> bool:
        return self._has_allowed and address in self.config.allow

    def _shut_out(self, address: ClientAddress, now: float) -> Refusal | None:
        """The rules that no waiting helps against."""
        if self.jail.holds(address.key, now) and not self._exempt(address):
            return _JAILED
        if self._has_denied and address in self.config.deny and not self._allowed(address):
            return _DENIED
        return None

    def _over_quota(self, address: ClientAddress, now: float, *, reservations: bool = False) -> Refusal | None:
        """The quotas of the address and of its prefix; both must have a token, or neither is spent.

        `promises`: the client will be told the refusal, so the next one has to be told another time.
        """
        if self._has_allowed and address in self.config.allow:
            return None
        own, shared, key = self._upgrades, self._prefixes, address.key
        if (own is None or not own.wait_s(key, now)) and (
            shared is None or not shared.wait_s(covering_prefix(key), now)
        ):
            return None
        return self._queue(key, now, reservations)

    def _queue(self, key: AddressKey, now: float, reservations: bool) -> Refusal:
        """Refuse until both quotas will have a token for this client behind all who wait already.

        How long the queue of the address is shows in what it adds to the time of the prefix, where others wait too.
        """
        own, shared, limits = self._upgrades, self._prefixes, self.leases.limits
        own_place = shared_place = None
        own_wait_s = shared_wait_s = 0.0
        if shared is not None:
            shared_place = shared.next_place(covering_prefix(key), now)
            shared_wait_s = shared_place[2]
            longest_s = limits.max_waiting_per_prefix * shared.pace_s + LATEST_S
            if shared_wait_s > longest_s:
                shared_place, shared_wait_s = None, longest_s
        if own is not None:
            own_place = own.next_place(key, now)
            own_wait_s = own_place[2]
            longest_s = shared_wait_s + limits.max_connections_per_address * own.pace_s + LATEST_S
            if own_wait_s > longest_s:
                return Refusal(429, Reason.QUEUE_FULL, longest_s, own.quota)
        if reservations:
            if own is not None and own_place is not None:
                wait_s = max(own_wait_s, shared_wait_s)
                own.reserve(own_place, now + wait_s, now + _whole_s(wait_s))
            if shared is not None and shared_place is not None:
                shared.reserve(shared_place, now + shared_wait_s, now + _whole_s(shared_wait_s))
        if own is not None and own_wait_s >= shared_wait_s:
            return Refusal(429, Reason.RATE_LIMIT, own_wait_s, own.quota)
        reason = Reason.PREFIX_QUEUE_FULL if shared_place is None else Reason.PREFIX_RATE_LIMIT
        return Refusal(429, reason, shared_wait_s, None if shared is None else shared.quota)

    def _take_token(self, address: ClientAddress, now: float) -> None:
        """Spend a token of both quotas, which have one."""
        if self._allowed(address):
            return
        if self._upgrades is not None:
            self._upgrades.spend(address.key, now)
        if self._prefixes is not None:
            self._prefixes.spend(covering_prefix(address.key), now)


def _patience(quota: Quota | None) -> Quota | None:
    """How often a client may be refused by the quota of requests before that is held against it.

    A web page can have its visitors send such requests, and must not get them jailed by a few hundred pictures.
    """
    if quota is None:
        return None
    factor = max(1, min(PATIENCE, MAX_COUNT // max(quota.count, quota.burst)))
    return Quota(quota.count * factor, quota.period_s, quota.burst * factor)


def _carried_over(before: Buckets[AddressKey] | None, fresh: Buckets[AddressKey] | None) -> Buckets[AddressKey] | None:
    """The buckets of before if their quota is the same, in the new size; else the new ones."""
    if before is None or fresh is None or before.quota != fresh.quota:
        return fresh
    before.resize(fresh.max_tracked)
    return before
