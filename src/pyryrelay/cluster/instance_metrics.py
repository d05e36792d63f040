"""The metrics of an instance: what it asked the directory, and which connections it passed on or took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pyryrelay.cluster.directory.roster import State
from pyryrelay.cluster.instance import Instance
from pyryrelay.metric_families import counter, counters, gauge

__all__ = ["InstanceCollector"]


class InstanceCollector(Collector):
    """See the module's docstring."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        if not self._instance.has_begun:
            return
        yield from self._of_directory()
        yield from self._of_splices()

    def _of_directory(self) -> Iterator[Metric]:
        directory = self._instance.directory
        figures = directory.figures
        text = "Questions to the directory (claim: a peer that would hold a key; look: others), by outcome."
        asked = CounterMetricFamily("pyryrelay_cluster_questions", text, labels=["question", "outcome"])
        for labels, count in figures.asked.items():
            asked.add_metric(labels, count)
        yield asked
        text = "Keys whose peers were closed here, because another instance holds them by right."
        yield counter("pyryrelay_cluster_keys_lost", text, figures.lost)
        text = "Times that the directory was told again of a key that is held here."
        yield counter("pyryrelay_cluster_keys_asserted", text, figures.asserted)
        yield counter("pyryrelay_cluster_keys_released", "Keys that were given back.", figures.released)
        text = "Keys that are held here, and that the directory has not confirmed."
        yield gauge("pyryrelay_cluster_keys_unconfirmed", text, directory.unconfirmed)
        text = "Instances of the cluster as they were listed last: there, left in order, or gone otherwise (over)."
        roster = self._instance.roll_call.roster
        states = Counter(row.state for row in roster.rows(roster.heard_at or 0.0))
        instances = GaugeMetricFamily("pyryrelay_cluster_instances", text, labels=["state"])
        for state in State:
            instances.add_metric([state.value], states[state])
        yield instances
        text = "Time since the lease of this instance was renewed; infinite if it never was."
        yield gauge("pyryrelay_cluster_lease_age_seconds", text, directory.lease_age_s)

    def _of_splices(self) -> Iterator[Metric]:
        instance, figures = self._instance, self._instance.figures
        text = "Connections that were accepted here, and are served by another instance."
        yield gauge("pyryrelay_cluster_spliced_connections", text, len(instance.splicing.splices))
        yield counter("pyryrelay_cluster_splices", "Connections that were passed on.", figures.begun)
        text = "Connections whose instance could not be reached."
        yield counter("pyryrelay_cluster_splice_failures", text, figures.failed)
        yield counter(
            "pyryrelay_cluster_spliced_bytes", "Bytes that were passed on, both ways.", instance.spliced_bytes
        )
        text = "Connections that the proxy in front was told to take elsewhere."
        yield counter("pyryrelay_cluster_redirects", text, figures.redirected)
        text = "Connections of other instances that were served here."
        yield counter("pyryrelay_cluster_arrivals", text, figures.arrived)
        text = "Connections of other instances that did not belong here either."
        yield counter("pyryrelay_cluster_sent_back", text, figures.sent_back)
        text = "Connections to --cluster-listen that were cut off, by problem."
        yield counters("pyryrelay_cluster_cut_off", text, "problem", figures.cut_off)
