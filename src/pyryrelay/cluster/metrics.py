"""The metrics of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pyryrelay.cluster.membership import Membership
from pyryrelay.cluster.redis.figures import BOUNDS_S
from pyryrelay.metric_families import buckets, counter, gauge

__all__ = ["ClusterCollector"]

_SHARD: Final = ["shard"]


class ClusterCollector(Collector):
    """Shows what a member shares. Shards are numbered as ``--cluster`` names them, from 0 on."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield from self._of_servers()
        membership = self._membership
        yield gauge("pyryrelay_cluster_members", "Members of the cluster, with this one.", membership.members.count)
        text = "Whether another cluster of the same name has another secret (0 or 1)."
        yield gauge("pyryrelay_cluster_secret_conflict", text, float(not membership.members.is_secret_shared))
        quotas, caps, sentences = membership.quotas, membership.caps, membership.sentences
        if quotas is None or caps is None or sentences is None:
            return
        yield gauge("pyryrelay_cluster_pending_keys", "Keys whose tokens are not charged yet.", quotas.pending)
        yield counter("pyryrelay_cluster_charge_calls", "Calls that charged tokens.", quotas.calls)
        yield counter(
            "pyryrelay_cluster_charged_keys",
            "Keys that were charged: addresses, prefixes, authors and so on.",
            quotas.charged,
        )
        yield counter("pyryrelay_cluster_dropped_tokens", "Tokens that could be told to nobody.", quotas.dropped)
        yield counter("pyryrelay_cluster_debts", "Debts that were heard.", quotas.debts)
        yield counter("pyryrelay_cluster_reported_addresses", "Counts of connections told to others.", caps.reported)
        yield counter("pyryrelay_cluster_sentences_told", "Sentences and releases told to others.", sentences.told)
        yield counter("pyryrelay_cluster_sentences_heard", "Sentences and releases of others.", sentences.heard)
        text = "Rows in the jail's stream that no member has written."
        yield counter("pyryrelay_cluster_unreadable_rows", text, sentences.unreadable)

        yield from self._of_broadcasts()

    def _of_broadcasts(self) -> Iterator[Metric]:
        texts = {
            "added": "Entries, such as new events, that were told to the other relays.",
            "failed": "Entries that were perhaps not told, because a server was down or refused them.",
            "read": "Entries of other relays that were read.",
            "unreadable": "Entries that no member has made, or that are too long.",
            "missed": "Times that entries were forgotten before they were read here.",
            "begun_anew": "Times that a server was found to have lost entries.",
        }
        counts = {
            name: CounterMetricFamily(f"pyryrelay_cluster_broadcast_{name}", text, labels=_SHARD)
            for name, text in texts.items()
        }
        text = "Time since everything that others had told was taken in here, while this process reads it."
        behind = GaugeMetricFamily("pyryrelay_cluster_broadcast_behind_seconds", text, labels=_SHARD)
        for number in range(len(self._membership.shards)):
            figures = self._membership.broadcasts.figures(number)
            for name, family in counts.items():
                family.add_metric([str(number)], sum(getattr(each, name) for each in figures))
            behind.add_metric([str(number)], self._membership.broadcasts.behind_s(number))
        yield from counts.values()
        yield behind

    def _of_servers(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("pyryrelay_cluster_up", "Whether a server can be used (0 or 1).", labels=_SHARD)
        skew = GaugeMetricFamily(
            "pyryrelay_cluster_clock_skew_seconds", "How far a server's clock is ahead of this one.", labels=_SHARD
        )
        outages = CounterMetricFamily("pyryrelay_cluster_outages", "Times a server was lost.", labels=_SHARD)
        refused = CounterMetricFamily(
            "pyryrelay_cluster_refused_calls", "Calls that were not made, as a server was down.", labels=_SHARD
        )
        took = HistogramMetricFamily("pyryrelay_cluster_call_seconds", "Time of an answer.", labels=_SHARD)
        for number, client in enumerate(self._membership.shards.clients):
            shard, figures = [str(number)], client.figures
            up.add_metric(shard, float(client.is_up))
            skew.add_metric(shard, figures.skew_s)
            outages.add_metric(shard, figures.outages)
            refused.add_metric(shard, figures.refused)
            took.add_metric(shard, buckets(BOUNDS_S, figures.counts), figures.total_s)
        yield from (up, skew, outages, refused, took, self._of_sentinels())

    def _of_sentinels(self) -> Metric:
        text = "Whether a sentinel has answered when it was asked last (0 or 1)."
        up = GaugeMetricFamily("pyryrelay_cluster_sentinel_up", text, labels=[*_SHARD, "sentinel"])
        for number, client in enumerate(self._membership.shards.clients):
            for sentinel in client.sentinels.all if client.sentinels is not None else ():
                up.add_metric([str(number), sentinel.name], float(not sentinel.problem))
        return up
