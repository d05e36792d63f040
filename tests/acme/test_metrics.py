"""The metric of orders."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from pyryrelay.acme.metrics import NO_ORDERS, AcmeCollector


def test_both_outcomes_are_there_from_the_first_scrape() -> None:
    """A counter that does not exist yet cannot be alerted on."""
    orders = dict(NO_ORDERS)
    registry = CollectorRegistry()
    registry.register(AcmeCollector(orders))
    assert 'pyryrelay_acme_orders_total{outcome="issued"} 0.0' in generate_latest(registry).decode()
    orders["failed"] += 2
    assert 'pyryrelay_acme_orders_total{outcome="failed"} 2.0' in generate_latest(registry).decode()
