"""The metrics of an instance."""

from __future__ import annotations

from tests.cluster.test_instance import instance

from pyryrelay.cluster.instance_metrics import InstanceCollector


def test_every_metric_is_there_from_the_start() -> None:
    """Before the instance has begun there are none."""
    made, _ = instance()
    collector = InstanceCollector(made)
    assert list(collector.collect()) == []
    made.begin("boot")
    found = {metric.name: metric for metric in collector.collect()}
    assert len(found) == 15
    states = {sample.labels["state"]: sample.value for sample in found["pyryrelay_cluster_instances"].samples}
    assert states == {"up": 0, "left": 0, "over": 0}
    assert len(found["pyryrelay_cluster_questions"].samples) == 12
    assert found["pyryrelay_cluster_lease_age_seconds"].samples[0].value == float("inf")
