"""The metrics of binaries and phones. Names that begin with ``pyrycode_relay_`` are fixed by the specification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from pyryrelay.guard import Reason
from pyryrelay.metric_families import counter, counters, gauge
from pyryrelay.protocol import Figure, Panel, Plot
from pyryrelay.pyry.relay import ENDPOINTS, Relay
from pyryrelay.refusal_words import RefusalWord

HEADERS, RATE_LIMIT = "reject_headers", "reject_rate_limit"
_ADMISSION: Final = frozenset({*Reason, RefusalWord.DRAINING})


@dataclass(frozen=True, slots=True, eq=False)
class PyryCollector(Collector):
    """Turns the counters of a relay into metric families. ``refused`` returns the refusals by endpoint and reason."""

    relay: Relay
    refused: Callable[[], Mapping[tuple[str | None, str], int]]

    def collect(self) -> Iterator[Metric]:
        """Return the metric families of one scrape."""
        registry, totals = self.relay.registry, self.relay.counters
        yield gauge("pyrycode_relay_connected_binaries", "Binaries that hold a server-id.", registry.binaries)
        yield gauge("pyrycode_relay_connected_phones", "Phones that are registered.", registry.phone_count)
        upgrades = CounterMetricFamily(
            "pyrycode_relay_ws_upgrade_attempts",
            "Upgrade attempts by endpoint and outcome.",
            labels=["endpoint", "outcome"],
        )
        refused = self._outcomes()
        for (endpoint, outcome), count in (totals.upgrades | refused).items():
            upgrades.add_metric([endpoint, outcome], count)
        yield upgrades
        failures = totals.register_failures | {"ratelimit": sum(refused[name, RATE_LIMIT] for name in ENDPOINTS)}
        yield counters(
            "pyrycode_relay_register_failures", "Peers that could not be registered, by cause.", "kind", failures
        )
        yield counters(
            "pyrycode_relay_frames_forwarded",
            "Frames that were forwarded.",
            "direction",
            {"phone_to_binary": totals.phone_to_binary, "binary_to_phone": totals.binary_to_phone},
        )
        expiries = "Server-ids whose binary did not return within the grace."
        yield counter("pyrycode_relay_grace_expiries", expiries, registry.grace_expiries)
        yield counters("pyrycode_relay_push_wakes", "Push wakes by outcome.", "outcome", totals.push_wakes)
        yield counters(
            "pyryrelay_envelopes_dropped",
            "Envelopes of binaries that could not be delivered.",
            "kind",
            totals.envelopes_dropped,
        )

    def _outcomes(self) -> Counter[tuple[str, str]]:
        """Count refused upgrades by endpoint and by the outcomes of the specification, with every pair present."""
        found = Counter(dict.fromkeys(product(ENDPOINTS, (HEADERS, RATE_LIMIT)), 0))
        for (route, reason), count in self.refused().items():
            if route in ENDPOINTS:
                found[route, RATE_LIMIT if reason in _ADMISSION else HEADERS] += count
        return found


def figures(relay: Relay) -> Mapping[str, Figure]:
    """Return the figures of `pyryrelay.protocol.RunningProtocol.figures`."""
    registry, totals = relay.registry, relay.counters
    return {
        "binaries": registry.binaries,
        "phones": registry.phone_count,
        "frames_total.phone_to_binary": totals.phone_to_binary,
        "frames_total.binary_to_phone": totals.binary_to_phone,
        **{f"register_failures_total.{kind}": count for kind, count in totals.register_failures.items()},
        **{f"envelopes_dropped_total.{kind}": count for kind, count in totals.envelopes_dropped.items()},
        "grace_expiries_total": registry.grace_expiries,
        **{f"push_wakes_total.{outcome}": count for outcome, count in totals.push_wakes.items()},
    }


PANEL: Final = Panel(
    "Pyry",
    (
        Plot("Binaries and phones", {"binaries": "binaries", "phones": "phones"}),
        Plot(
            "Frames forwarded",
            {
                "phone to binary": "frames_total.phone_to_binary",
                "binary to phone": "frames_total.binary_to_phone",
            },
        ),
        Plot("Envelopes dropped", parts_of="envelopes_dropped_total"),
        Plot("Peers that could not be registered", parts_of="register_failures_total"),
    ),
    {
        "bad_server_id": "The header x-pyrycode-server is missing, too long, or has characters that it may not have.",
        "missing_header": "A header that the endpoint requires is missing.",
    },
)
"""What the dashboard shows of these figures."""
