"""The metrics about hand-overs between workers."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.scrape import samples_of

from pyryrelay.observe.metrics import exposition
from pyryrelay.workers.admin.hand_overs import HandOverCollector, PassingCollector
from pyryrelay.workers.merging.expositions import merge_expositions


@dataclass
class Counts:
    """What a worker has counted."""

    handed_over: int = 0
    received: int = 0
    refused: int = 0


def test_each_outcome_has_a_sample() -> None:
    """All of them are there from the first scrape on, and follow the counts."""
    counts = Counts()
    scrape = exposition([HandOverCollector(counts)])
    name = "pyryrelay_worker_handovers_total"
    outcomes = [(name, (("outcome", word),)) for word in ("sent", "received", "refused")]
    assert [samples_of(scrape().decode())[outcome] for outcome in outcomes] == [0, 0, 0]
    counts.handed_over, counts.received, counts.refused = 3, 2, 1
    assert [samples_of(scrape().decode())[outcome] for outcome in outcomes] == [3, 2, 1]


def test_lost_connections_are_shown_for_each_process() -> None:
    """Those of the supervisor beside those of workers, in one family."""
    lost = 0
    scrape = exposition([PassingCollector(lambda: lost)])
    before, lost = scrape().decode(), 7
    found = samples_of(merge_expositions({0: before, 1: scrape().decode()}, before))
    name = "pyryrelay_worker_lost_connections_total"
    assert found[name, ()] == found[name, (("worker", "0"),)] == 0
    assert found[name, (("worker", "1"),)] == 7
