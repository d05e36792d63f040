"""What operators see of events between hosts: metrics, figures, and plots of the dashboard. Only relays in a cluster
have them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pyryrelay.metric_families import counter, counters, gauge
from pyryrelay.nostr.replication.totals import Totals
from pyryrelay.protocol import Figure, Panel, Plot

__all__ = ["HostsCollector", "hosts_figures", "with_hosts"]

PREFIX: Final = "pyryrelay_nostr_cluster_"


class State(Protocol):
    """What there is now: a `pyryrelay.nostr.replication.replication.Replication`."""

    @property
    def waiting(self) -> int:
        """How many events wait to be announced."""

    @property
    def behind_s(self) -> float:
        """How old the entries are that are being taken in."""


def _not_announced(totals: Totals) -> Mapping[str, int]:
    return {"too_large": totals.too_large, "ephemeral": totals.ephemeral_dropped}


@dataclass(frozen=True, slots=True, eq=False)
class HostsCollector(Collector):
    """Turns the totals of events between hosts into metric families."""

    totals: Totals
    state: State

    def collect(self) -> Iterator[Metric]:
        """Return the metric families of one scrape."""
        totals = self.totals
        yield counters(
            f"{PREFIX}announced",
            "Events that the other hosts were told of, by whether they are stored.",
            "kind",
            {"stored": totals.announced, "ephemeral": totals.ephemeral_announced},
        )
        yield counters(
            f"{PREFIX}not_announced",
            "Events that no other host gets: too large for an entry, or ephemeral while a server is down.",
            "reason",
            _not_announced(totals),
        )
        yield counters(
            f"{PREFIX}taken_in",
            "Events that other hosts have announced, by what became of them here.",
            "outcome",
            totals.taken_in,
        )
        yield counter(
            f"{PREFIX}asked_again",
            "Times that other hosts were asked for events that servers had lost, or not kept, before it read them.",
            totals.asked_again,
        )
        yield counter(
            f"{PREFIX}missed",
            "Times that they did not announce all of those again, so that events may be missing here.",
            totals.missed,
        )
        yield gauge(
            f"{PREFIX}waiting_events",
            "Events in the database that wait to be announced; some may be deleted by now.",
            self.state.waiting,
        )
        yield gauge(
            f"{PREFIX}behind_seconds",
            "How long ago the events were announced that are being taken in; 0 if none are.",
            self.state.behind_s,
        )


def hosts_figures(totals: Totals, state: State | None) -> Mapping[str, Figure]:
    """Return the figures of `pyryrelay.protocol.RunningProtocol.figures`."""
    taken_in = totals.taken_in
    known = ("stored", "duplicate", "ephemeral")
    refused = sum(count for outcome, count in taken_in.items() if outcome not in known)
    return {
        "cluster_announced_total": totals.announced + totals.ephemeral_announced,
        **{f"cluster_taken_in_total.{outcome}": taken_in[outcome] for outcome in known},
        "cluster_taken_in_total.not_taken": refused,
        "cluster_waiting": 0 if state is None else state.waiting,
    }


def with_hosts(panel: Panel) -> Panel:
    """Return a panel with the plots of a relay in a cluster."""
    plots = (
        Plot("Events announced to other hosts", {"announced": "cluster_announced_total"}),
        Plot("Events of other hosts, by outcome", parts_of="cluster_taken_in_total"),
        Plot("Events that wait to be announced", {"events": "cluster_waiting"}),
    )
    return replace(panel, plots=(*panel.plots, *plots))
