"""The observer of refusals: each one is counted, logged, and recorded as a strike against its address.

It also detects the most common mistake in a configuration: a proxy that was not named, so that all of its clients count
as one. Then nearly all attempts come from one address with a `ProxySign`: it sends forwarding headers that are not
trusted, the forwarding header names further hops, or the address is private, like that of Docker's gateway. Times are
seconds on a monotonic clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pyryrelay.guard import AddressKey, CidrSet, ClientAddress, Gate
from pyryrelay.guard.address.clientip import Via
from pyryrelay.observe.log import EventLog

WINDOW_S: Final = 300.0
MIN_ATTEMPTS: Final = 50
"""Fewer than it takes to be jailed by default, which is 20 admitted attempts and 60 refusals."""
PROXY_SHARE: Final = 0.9
"""An address with a larger share of all attempts is suspected."""
MAX_SUSPECTS: Final = 64
MAX_RECENT: Final = 200
"""How many of the last refusals are kept for operators."""

DECISION_BUCKETS_S: Final = (20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3)

_PRIVATE: Final = CidrSet(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"])


@dataclass(frozen=True, slots=True)
class ProxySign:
    """Why an address looks like a proxy, and what to do if it is one; both are parts of a sentence."""

    why: str
    advice: str


UNTRUSTED_HEADERS: Final = ProxySign(
    "which sends forwarding headers that are not trusted",
    "If it is your proxy, add --trust-x-forwarded-for and --trusted-proxy with its address",
)
FURTHER_HOPS: Final = ProxySign(
    "while the forwarding header names further addresses behind it",
    "If it is a load balancer of yours, add its address to --trusted-proxy",
)
PRIVATE_ADDRESS: Final = ProxySign(
    "which is a private address and sends no forwarding headers",
    "If it is a proxy, have it send X-Forwarded-For, and add --trust-x-forwarded-for and --trusted-proxy with its "
    "address; if it is Docker's gateway, give the container the network of the host",
)


def proxy_sign(client: ClientAddress, via: Via) -> ProxySign | None:
    """Return the sign of a proxy that an attempt of this client has, if any."""
    if via is Via.DIRECT:
        return PRIVATE_ADDRESS if client in _PRIVATE else None
    return UNTRUSTED_HEADERS if via is Via.UNTRUSTED_HEADERS else FURTHER_HOPS


class ProxyDetector:
    """PURE: detects an address that makes nearly all attempts and looks like a proxy. Its memory is bounded."""

    def __init__(self) -> None:
        self._window_began_s: float | None = None
        self._has_warned = False
        self._attempts = 0
        self._suspects: dict[AddressKey, tuple[int, ProxySign]] = {}

    def attempted(self, client: ClientAddress, sign: ProxySign | None, now: float) -> bool:
        """Record an attempt. Returns True if it is time to warn about this client, once in a window."""
        if self._window_began_s is None or now - self._window_began_s >= WINDOW_S:
            self._window_began_s, self._has_warned, self._attempts, self._suspects = now, False, 0, {}
        self._attempts += 1
        if sign is None or (client.key not in self._suspects and len(self._suspects) >= MAX_SUSPECTS):
            return False
        count = self._suspects.get(client.key, (0, sign))[0] + 1
        self._suspects[client.key] = count, sign
        if self._has_warned or self._attempts < MIN_ATTEMPTS or count <= PROXY_SHARE * self._attempts:
            return False
        self._has_warned = True
        return True

    def jailed(self, client: ClientAddress) -> ProxySign | None:
        """Record that a client is jailed. Returns its sign, if it has one and there was no warning in this window."""
        if self._has_warned or client.key not in self._suspects:
            return None
        self._has_warned = True
        return self._suspects[client.key][1]


@dataclass(slots=True)
class Histogram:
    """Counts of observed values between fixed upper bounds."""

    bounds: tuple[float, ...]
    total: float = 0.0
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class RecentRefusal(NamedTuple):
    """A refusal, ``at_s`` of the monotonic clock; see `Refusals.refused`."""

    at_s: float
    route: str | None
    status: int
    reason: str
    client: ClientAddress | None


@dataclass(slots=True)
class Refusals:
    """Implements `pyryrelay.http.listener_context.Observer`."""

    gate: Gate
    log: EventLog
    now: Callable[[], float]
    counts: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    """Number of refusals by endpoint and reason. All other figures about refusals are derived from it on request."""
    decisions: Histogram = field(default_factory=lambda: Histogram(DECISION_BUCKETS_S))
    recent: deque[RecentRefusal] = field(default_factory=lambda: deque(maxlen=MAX_RECENT))
    """The last refusals, the newest last."""
    total: int = 0
    """The number of all refusals."""
    _detector: ProxyDetector = field(default_factory=ProxyDetector)

    def refused(self, route: str | None, status: int, reason: str, client: ClientAddress | None) -> None:
        """See `pyryrelay.http.listener_context.Observer`."""
        self.counts[route, reason] += 1
        self.total += 1
        self.recent.append(RecentRefusal(self.now(), route, status, reason, client))
        self.log.refused(route, status, reason, client)
        self.struck(client, reason)

    def struck(self, client: ClientAddress | None, reason: str) -> None:
        """Record a strike against a client, and log the sentence if there is one."""
        now = self.now()
        sentence = self.gate.strike(client, reason, now)
        if client is not None and sentence is not None:
            with_network = sentence.key != client.key
            self.log.jailed(client, sentence.until_s - now, sentence.times, with_network=with_network)
            sign = self._detector.jailed(client)
            if sign is not None:
                # A proxy collects the refusals of all its clients. The operator must learn why they are locked out.
                self.log.proxy_jailed(client, sign.why, sign.advice)

    def attempted(self, client: ClientAddress, via: Via) -> None:
        """See `pyryrelay.http.listener_context.Observer`."""
        sign = proxy_sign(client, via)
        if self._detector.attempted(client, sign, self.now()) and sign is not None:
            self.log.proxy_suspected(client, sign.why, sign.advice)

    def decided(self, seconds: float) -> None:
        """See `pyryrelay.http.listener_context.Observer`."""
        self.decisions.observe(seconds)

    def by_reason(self) -> Counter[str]:
        """Return the number of refusals by reason."""
        found: Counter[str] = Counter()
        for (_, reason), count in self.counts.items():
            found[reason] += count
        return found
