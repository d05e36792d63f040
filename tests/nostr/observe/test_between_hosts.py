"""What operators see of events between hosts: complete from the first scrape."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.panels import check_panel
from tests.support.scrape import key, samples_of

from pyryrelay.nostr.mount import NOSTR
from pyryrelay.nostr.observe.between_hosts import PREFIX, HostsCollector, hosts_figures, with_hosts
from pyryrelay.nostr.observe.panel import PANEL
from pyryrelay.nostr.replication.totals import TAKEN_OUTCOMES, Totals
from pyryrelay.observe.metrics import exposition
from pyryrelay.protocol import Panel


@dataclass
class State:
    """What there is now."""

    waiting: int = 3
    behind_s: float = 1.5


def test_the_metrics() -> None:
    """Totals and what there is now; every label value is there from the start."""
    totals = Totals(announced=5, ephemeral_announced=2, ephemeral_dropped=1, too_large=4)
    totals.taken_in["stored"] = 7
    samples = samples_of(exposition([HostsCollector(totals, State())])().decode())

    def value(name: str, **labels: str) -> float:
        return samples[key(f"{PREFIX}{name}", labels)]

    assert [value("announced_total", kind=kind) for kind in ("stored", "ephemeral")] == [5, 2]
    assert [value("not_announced_total", reason=reason) for reason in ("too_large", "ephemeral")] == [4, 1]
    assert {outcome: value("taken_in_total", outcome=outcome) for outcome in TAKEN_OUTCOMES} == totals.taken_in
    assert (value("waiting_events"), value("behind_seconds")) == (3, 1.5)


def test_the_figures_and_the_plots() -> None:
    """What was refused is one sum. A process that does not speak for its host has the same figures, all zero."""
    totals = Totals()
    totals.taken_in |= {"stored": 7, "signature": 2, "malformed": 1}
    figures = hosts_figures(totals, State())
    assert figures["cluster_taken_in_total.stored"] == 7
    assert figures["cluster_taken_in_total.not_taken"] == 3
    assert figures["cluster_waiting"] == 3
    assert hosts_figures(Totals(), None).keys() == figures.keys()
    plots = with_hosts(PANEL).plots[len(PANEL.plots) :]
    check_panel(Panel("Hosts", plots, PANEL.words), figures, NOSTR.refusal_words)
