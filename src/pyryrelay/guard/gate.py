"""The gate: the one place that admits or refuses a client.

It is asked at three depths of a connection's life, with the same answer at each:

* `Gate.arrive` when a socket was accepted: may it stay while it sends its request? `Gate.peek_arrival` says what it
  would answer, and takes no place.
* `Gate.peek` when the client address is known: would it be admitted? Costs nothing. `Gate.refuse` is the same question
  about an attempt that ends with the refusal: it then costs what `admit` would have taken.
* `Gate.admit` when the upgrade is due: the authority, which spends exactly one token and hands out the lease.

An attempt that is refused for another reason, such as a bad header, still was an attempt: `Gate.spend` takes its token.
A request that asks for no upgrade has a quota of its own: `Gate.request`, or `Gate.request_by_proxy` where its client
cannot be read. So has a TLS handshake, which is paid for before it begins: `Gate.handshake`. Connections that end
before there is a request are reported to `Gate.closed_early`.

Rules are checked in this order: attributable at all (429), jail and deny list (403), quota of the address and of its
prefix (429), caps on all clients together (503), caps of the address and of its prefix (429). The allow list exempts
from jail, deny list and quotas, never from caps. Loopback and `GateConfig.jail_exempt` are exempt from the jail alone.
Attempts without an address, jailed and denied ones spend nothing. An attempt that passes the quotas and meets a cap has
spent its token.

A client that finds no token is told when there will be one for it, behind all clients that wait already (see
`pyryrelay.guard.waiting_queue`), so clients that wait as long as they are told come in whatever their number. Clients
that come again before their time fill the queue, and only they are refused because it is full (`Reason.QUEUE_FULL`).
Other refusals by a quota of attempts are not the client's fault.

None of these count or strike. The caller that refuses a client calls `Gate.strike` with the reason, once, so a refusal
that was found early and one that was found late lead to the jail alike.

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address
from math import inf
from typing import Final

from pyryrelay.guard.address.clientip import ClientAddress
from pyryrelay.guard.address.keys import ADDRESS_LADDER, AddressKey, covering_prefix
from pyryrelay.guard.client import READY, Client, named
from pyryrelay.guard.gate_config import EARLY_CLOSE_QUOTA, GateConfig
from pyryrelay.guard.jail import Jail, JailPolicy, Sentence
from pyryrelay.guard.leases import CapReason, Lease, Leases
from pyryrelay.guard.rate.buckets import SWEEP_SLICE, Buckets, Level, Tracking
from pyryrelay.guard.rate.cluster_buckets import ClusterBuckets
from pyryrelay.guard.rate.quota import Quota
from pyryrelay.guard.rate.tables import ShardedDict, SortedTable, Table
from pyryrelay.guard.refusal import CAP_REFUSALS, DENIED, JAILED, UNATTRIBUTABLE, Reason, Refusal
from pyryrelay.guard.sharing.leases import SharedLeases
from pyryrelay.guard.standing import Standing
from pyryrelay.guard.waiting_queue import WaitingQueue

__all__ = ["Gate"]

_OFF: Final[Buckets[AddressKey] | None] = None


class Gate:
    """Admission control for one server. See the module's docstring for the rules and their order.

    ``leases`` and ``jail`` show what is held; ``swept_s`` is when `sweep` was called last. Clients are named by what
    `TrustPolicy.derive` or `client_address` returns, or by an address or its text; every method raises `AddressError`
    for anything else. Raises `GuardError` if the configuration cannot be enforced.

    With ``on_change`` other servers share the quotas of attempts and of plain requests, and the cap per address: what
    is spent here is in `shared_tables`, and ``on_change`` is called when there is something new in one of them.
    """

    def __init__(self, config: GateConfig | None = None, on_change: Callable[[], object] | None = None) -> None:
        """Start without connections, and with every bucket full."""
        config = GateConfig() if config is None else config
        self._on_change = on_change
        self.leases = Leases(config.limits) if on_change is None else SharedLeases(config.limits)
        self.jail = Jail(config.jail or JailPolicy())
        self.swept_s = -inf
        self._early_closes = _buckets(EARLY_CLOSE_QUOTA, config.max_tracked)
        # Of attempts to upgrade, of plain requests, of plain requests that show a proxy alone, of refused plain
        # requests, and of TLS handshakes.
        self._upgrades = self._upgrades_by_prefix = _OFF
        self._requests = self._requests_by_proxy = self._http_refusals = _OFF
        self._handshakes = self._handshakes_by_prefix = _OFF
        self.configure(config, 0.0)

    def configure(self, config: GateConfig, now: float) -> None:
        """Enforce a configuration from now on. Open connections stay open.

        A quota that is the same keeps its buckets, whatever their bound; one that is new starts with full ones. Raises
        `GuardError`, and changes nothing, if the configuration cannot be enforced.
        """
        most, shared = config.max_tracked, self._on_change is not None
        # The bound on tracked keys is all that can be wrong, and this fails first.
        self._early_closes.resize(most)
        self._upgrades = _kept_or_new(self._upgrades, config.upgrade_quota, most, is_shared=shared)
        self._upgrades_by_prefix = _kept_or_new(
            self._upgrades_by_prefix, config.prefix_quota, most, SortedTable, is_shared=shared
        )
        self._requests = _kept_or_new(self._requests, config.http_quota, most, is_shared=shared)
        self._requests_by_proxy = _kept_or_new(self._requests_by_proxy, config.http_quota, most)
        self._http_refusals = _kept_or_new(self._http_refusals, config.http_refusal_quota(), most)
        self._handshakes = _kept_or_new(self._handshakes, config.tls_quota, most)
        self._handshakes_by_prefix = _kept_or_new(
            self._handshakes_by_prefix, config.tls_prefix_quota, most, SortedTable
        )
        if self._on_change is not None:
            for table in self.shared_tables().values():
                table.ledger.on_change = self._on_change
        self.config = config
        self.leases.limits = config.limits
        if config.jail is not None:
            self.jail.configure(config.jail, now)
        self._queue = WaitingQueue(self._upgrades, self._upgrades_by_prefix, config.limits)
        # Worked out once, because every attempt asks several times, and most lists are empty.
        self._has_allowed, self._has_denied = bool(config.allow), bool(config.deny)
        self._no_strikes = config.reasons_without_strike()

    @property
    def tracked(self) -> int:
        """Number of keys that take memory; a gauge."""
        return sum(map(len, self._all_buckets()))

    def shared_tables(self) -> Mapping[str, ClusterBuckets[AddressKey]]:
        """Return the buckets that other servers share, by the name of their quota. A reload may replace them."""
        named = {"upgrade": self._upgrades, "prefix": self._upgrades_by_prefix, "http": self._requests}
        return {name: table for name, table in named.items() if isinstance(table, ClusterBuckets)}

    def _all_buckets(self) -> list[Buckets[AddressKey]]:
        optional = (
            self._upgrades,
            self._upgrades_by_prefix,
            self._requests,
            self._requests_by_proxy,
            self._http_refusals,
            self._handshakes,
            self._handshakes_by_prefix,
        )
        return [buckets for buckets in (*optional, self._early_closes) if buckets is not None]

    def arrive(self, address: Client, now: float) -> Lease | Refusal:
        """Let a connection that was just accepted stay until it is upgraded, or refuse it. Spends no token.

        ``address`` is the peer's own. None stands for a trusted proxy or a UNIX socket, which only the cap on all
        handshakes counts.
        """
        if not isinstance(address, READY):
            address = named(address)
        if address is not None and (refusal := self._jailed_or_denied(address, now)) is not None:
            return refusal
        taken = self.leases.take_handshake(None if address is None else address.key)
        return CAP_REFUSALS[taken] if isinstance(taken, CapReason) else taken

    def peek_arrival(self, address: Client, now: float) -> Refusal | None:
        """Return the refusal that `arrive` would give now, or None. Changes nothing."""
        if not isinstance(address, READY):
            address = named(address)
        if address is None:
            cap = self.leases.would_refuse_handshake(None)
        elif (refusal := self._jailed_or_denied(address, now)) is not None:
            return refusal
        else:
            cap = self.leases.would_refuse_handshake(address.key)
        return None if cap is None else CAP_REFUSALS[cap]

    def peek(self, address: Client, route: str, now: float) -> Refusal | None:
        """Return the refusal that `admit` would give now, or None. Changes nothing."""
        if not isinstance(address, READY):
            address = named(address)
        if address is None:
            return UNATTRIBUTABLE
        refusal = self._jailed_or_denied(address, now) or self._over_quota(address, now)
        if refusal is not None:
            return refusal
        cap = self.leases.would_refuse_connection(address.key, route)
        return None if cap is None else CAP_REFUSALS[cap]

    def spend(self, address: Client, now: float) -> Refusal | None:
        """Take the token of an attempt that is refused for another reason. Takes no lease and looks at no cap.

        Returns the refusal if the attempt had no token to spend: that one goes first.
        """
        if not isinstance(address, READY):
            address = named(address)
        if address is None:
            return UNATTRIBUTABLE
        refusal = self._jailed_or_denied(address, now) or self._over_quota(address, now, reserve=True)
        if refusal is None:
            self._take_token(address, now)
        return refusal

    def refuse(self, address: Client, route: str, now: float) -> Refusal | None:
        """Refuse an attempt as `admit` would, token included; return None, and spend nothing, if that would not refuse.

        The same as `peek`, and `spend` if that refuses, in less time.
        """
        if not isinstance(address, READY):
            address = named(address)
        if address is None:
            return UNATTRIBUTABLE
        refusal = self._jailed_or_denied(address, now) or self._over_quota(address, now, reserve=True)
        if refusal is not None:
            return refusal
        cap = self.leases.would_refuse_connection(address.key, route)
        if cap is None:
            return None
        self._take_token(address, now)
        return CAP_REFUSALS[cap]

    def admit(self, address: Client, route: str, now: float) -> Lease | Refusal:
        """Spend one token and take a place on ``route``, or say why not. The caller must release the lease."""
        if not isinstance(address, READY):
            address = named(address)
        if address is None:
            return UNATTRIBUTABLE
        refusal = self.spend(address, now)
        if refusal is not None:
            return refusal
        taken = self.leases.take_connection(address.key, route)
        return CAP_REFUSALS[taken] if isinstance(taken, CapReason) else taken

    def request(self, address: Client, now: float) -> Refusal | None:
        """Spend the token of a request that asks for no upgrade, or say why not."""
        if not isinstance(address, READY):
            address = named(address)
        if self._requests is None:
            return None if address is None else self._jailed_or_denied(address, now)
        if address is None:
            return UNATTRIBUTABLE
        refusal = self._jailed_or_denied(address, now)
        if refusal is not None or self._allowed(address):
            return refusal
        decision = self._requests.spend(address.key, now)
        if decision.allowed:
            return None
        return Refusal(429, Reason.HTTP_RATE_LIMIT, decision.retry_after_s, self._requests.quota)

    def request_by_proxy(self, proxy: ClientAddress | None, now: float) -> Refusal | None:
        """Spend the token of a request of which only the proxy is known (None on a UNIX socket), or say why not.

        Such requests have buckets of their own, so that they cannot spend what the proxy's own requests need.
        """
        if self._requests_by_proxy is None:
            return None
        decision = self._requests_by_proxy.spend(0 if proxy is None else proxy.key, now)
        if decision.allowed:
            return None
        return Refusal(429, Reason.HTTP_RATE_LIMIT, decision.retry_after_s, self._requests_by_proxy.quota)

    def handshake(self, address: Client, now: float) -> Refusal | None:
        """Spend the tokens of a TLS handshake that is about to begin, or say why not.

        The client cannot be told when to come back, so the quotas limit the cost of handshakes alone. Exempt are the
        allow list, `GateConfig.jail_exempt`, and clients without an address.
        """
        if not isinstance(address, READY):
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

    def closed_early(self, address: Client, now: float) -> bool:
        """Note that a connection ended before there was a request; return whether its address does that too often.

        Some such connections are normal: browsers connect ahead of time, and load balancers check servers.
        """
        if not isinstance(address, READY):
            address = named(address)
        if address is None or self._exempt(address):
            return False
        return not self._early_closes.spend(address.key, now).allowed

    def strike(self, address: Client, reason: str, now: float) -> Sentence | None:
        """Hold a refusal against a client for its reason, the guard's or the caller's own; return a sentence for that.

        Refusals that are not the client's fault are no strikes, and neither are those of exempt addresses. Requests
        that ask for no upgrade are strikes only far beyond their quota, because web pages can make browsers send them.
        """
        if not isinstance(address, READY):
            address = named(address)
        if address is None or self.config.jail is None or reason in self._no_strikes or self._exempt(address):
            return None
        # Neighbours have filled that queue, and a client that does not wait fills its own as well. A client that comes
        # from another address of its /48 each time does not: these strikes are what jails the /48.
        if reason == Reason.PREFIX_QUEUE_FULL and self._upgrades is not None and isinstance(address.ip, IPv4Address):
            return None
        tolerated = self._http_refusals if reason == Reason.HTTP_RATE_LIMIT else None
        if tolerated is not None and tolerated.spend(address.key, now).allowed:
            return None
        # No client that waits as long as it is told meets a full queue, so few such refusals are enough.
        return self.jail.strike(address.key, now, self.jail.tenth if reason == Reason.QUEUE_FULL else 1)

    def is_allowed(self, address: ClientAddress) -> bool:
        """Return whether an address is on the allow list, so that no quota holds for it."""
        return self._allowed(address)

    def standing(self, address: Client, routes: Iterable[str], now: float) -> Standing:
        """Return all that decides about a client on these routes. Changes nothing. Raises `AddressError` for None."""
        client = address if isinstance(address, ClientAddress) else named(address)
        key, config = client.key, self.config
        own = {"upgrade_quota": self._upgrades, "http_quota": self._requests, "tls_quota": self._handshakes}
        shared = {"prefix_quota": self._upgrades_by_prefix, "tls_prefix_quota": self._handshakes_by_prefix}
        return Standing(
            is_loopback=client.is_loopback,
            is_proxy=client in config.jail_exempt,
            allowed=config.allow.range_around(client),
            denied=config.deny.range_around(client),
            sentence=self.jail.sentence(key, now),
            strikes=self.jail.strikes(key, now),
            levels=_levels(own, key, now),
            prefix_levels=_levels(shared, covering_prefix(key), now),
            held=self.leases.held(key),
            arrival=self.peek_arrival(client, now),
            refusals={route: self.peek(client, route, now) for route in routes},
        )

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

    def _jailed_or_denied(self, address: ClientAddress, now: float) -> Refusal | None:
        """Return the refusal by the rules that no waiting helps against."""
        if self.jail.holds(address.key, now) and not self._exempt(address):
            return JAILED
        if self._has_denied and address in self.config.deny and not self._allowed(address):
            return DENIED
        return None

    def _over_quota(self, address: ClientAddress, now: float, *, reserve: bool = False) -> Refusal | None:
        """Return the refusal by the quotas of the address and of its prefix, unless both have a token. Spends none.

        With ``reserve`` the client will be told the refusal, so the next one has to be told another time.
        """
        if self._has_allowed and address in self.config.allow:
            return None
        own, shared, key = self._upgrades, self._upgrades_by_prefix, address.key
        if (own is None or not own.wait_s(key, now)) and (
            shared is None or not shared.wait_s(covering_prefix(key), now)
        ):
            return None
        return self._queue.refuse(key, now, reserve=reserve)

    def _take_token(self, address: ClientAddress, now: float) -> None:
        """Spend a token of both quotas, which have one."""
        if self._allowed(address):
            return
        if self._upgrades is not None:
            self._upgrades.spend(address.key, now)
        if self._upgrades_by_prefix is not None:
            self._upgrades_by_prefix.spend(covering_prefix(address.key), now)


_NewTable = Callable[[], Table[AddressKey, float]]


def _buckets(
    quota: Quota, max_tracked: int, new_table: _NewTable = ShardedDict, *, is_shared: bool = False
) -> Buckets[AddressKey]:
    tracking = Tracking(max_tracked, ADDRESS_LADDER, new_table, ShardedDict)
    return ClusterBuckets(quota, tracking) if is_shared else Buckets(quota, tracking)


def _levels(
    quotas: Mapping[str, Buckets[AddressKey] | None], key: AddressKey, now: float
) -> Mapping[str, Level[AddressKey] | None]:
    return {name: None if buckets is None else buckets.level(key, now) for name, buckets in quotas.items()}


def _kept_or_new(
    before: Buckets[AddressKey] | None,
    quota: Quota | None,
    max_tracked: int,
    new_table: _NewTable = ShardedDict,
    *,
    is_shared: bool = False,
) -> Buckets[AddressKey] | None:
    """Return the buckets of before, resized, if their quota is the same; else full ones, if there is a quota."""
    if before is None or before.quota != quota:
        return None if quota is None else _buckets(quota, max_tracked, new_table, is_shared=is_shared)
    before.resize(max_tracked)
    return before
