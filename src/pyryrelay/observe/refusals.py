"""Everything that is refused passes here once: it is counted, logged, and a strike against its address.

Also a look-out for the classic mistake, a proxy that hides its clients. Then nearly all attempts come from one address
that shows a `Sign` of it: forwarding headers which we were not told to trust, a chain that goes on behind it, or a
private address of its own, like Docker's gateway. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pyryrelay.guard import AddressKey, CidrSet, ClientAddress, Gate
from pyryrelay.guard.address.clientip import Via
from pyryrelay.observe.log import EventLog

WINDOW_S: Final = 300.0
MIN_ATTEMPTS: Final = 50
"""Fewer than lead to the jail by default: 20 that pass, and 60 refusals."""
HIDING_SHARE: Final = 0.9
MAX_SUSPECTS: Final = 64

DECISION_BUCKETS_S: Final = (20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3)

_PRIVATE: Final = CidrSet(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"])


@dataclass(frozen=True, slots=True)
class Sign:
    """What makes an address look like a proxy, and what to do if it is one; both are parts of a sentence."""

    what: str
    advice: str


STRANGER: Final = Sign(
    "which sends forwarding headers that are not trusted",
    "If it is your proxy, add --trust-x-forwarded-for and --trusted-proxy with its address",
)
BEYOND: Final = Sign(
    "while the forwarding header names others behind it",
    "If it is a load balancer of yours, add its address to --trusted-proxy",
)
PRIVATE: Final = Sign(
    "which is private and forwards for nobody",
    "If it is a proxy, have it send X-Forwarded-For, and add --trust-x-forwarded-for and --trusted-proxy with its "
    "address; if it is Docker's gateway, give the container the network of the host",
)


def sign_of(client: ClientAddress, via: Via) -> Sign | None:
    """The sign that an attempt of this client shows."""
    if via is Via.DIRECT:
        return PRIVATE if client in _PRIVATE else None
    return STRANGER if via is Via.STRANGER else BEYOND


class HiddenClients:
    """PURE: does one address that looks like a proxy make nearly all attempts? Bounded memory."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._warned = False
        self._attempts = 0
        self._suspects: dict[AddressKey, tuple[int, Sign]] = {}

    def attempted(self, client: ClientAddress, sign: Sign | None, now: float) -> bool:
        """Note an attempt; True once in a window, when it is time to warn about this client."""
        if self._since_s is None or now - self._since_s >= WINDOW_S:
            self._since_s, self._warned, self._attempts, self._suspects = now, False, 0, {}
        self._attempts += 1
        if sign is None or (client.key not in self._suspects and len(self._suspects) >= MAX_SUSPECTS):
            return False
        count = self._suspects.get(client.key, (0, sign))[0] + 1
        self._suspects[client.key] = count, sign
        if self._warned or self._attempts < MIN_ATTEMPTS or count <= HIDING_SHARE * self._attempts:
            return False
        self._warned = True
        return True

    def jailed(self, client: ClientAddress) -> Sign | None:
        """Somebody goes to jail; the sign that it showed, if nobody was warned in this window."""
        if self._warned or client.key not in self._suspects:
            return None
        self._warned = True
        return self._suspects[client.key][1]


@dataclass(slots=True)
class Histogram:
    """Cumulative counts of observed values under fixed upper bounds, as Prometheus wants them."""

    bounds: tuple[float, ...]
    total: float = 0.0
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class Refusals:
    """The entrance's observer."""

    gate: Gate
    log: EventLog
    now: Callable[[], float]
    counts: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    """By endpoint and reason; everything else that is told of refusals is derived from it when somebody asks."""
    decisions: Histogram = field(default_factory=lambda: Histogram(DECISION_BUCKETS_S))
    _hidden: HiddenClients = field(default_factory=HiddenClients)

    def refused(self, route: str | None, status: int, reason: str, client: ClientAddress | None) -> None:
        """See `pyryrelay.http.listener_context.Observer`."""
        self.counts[route, reason] += 1
        self.log.refused(route, status, reason, client)
        now = self.now()
        sentence = self.gate.strike(client, reason, now)
        if client is not None and sentence is not None:
            with_network = sentence.key != client.key
            self.log.jailed(client, sentence.until_s - now, sentence.times, with_network=with_network)
            sign = self._hidden.jailed(client)
            if sign is not None:
                # A proxy that hides its clients collects their refusals, and must not vanish without a word.
                self.log.proxy_jailed(client, sign.what, sign.advice)

    def attempted(self, client: ClientAddress, via: Via) -> None:
        """See `pyryrelay.http.listener_context.Observer`."""
        sign = sign_of(client, via)
        if self._hidden.attempted(client, sign, self.now()) and sign is not None:
            self.log.clients_hidden(client, sign.what, sign.advice)

    def decided(self, seconds: float) -> None:
        """See `pyryrelay.http.listener_context.Observer`."""
        self.decisions.observe(seconds)

    def by_reason(self) -> Counter[str]:
        """Refused requests."""
        found: Counter[str] = Counter()
        for (_, reason), count in self.counts.items():
            found[reason] += count
        return found
