"""What the publishers of the chaos driver ask."""

from __future__ import annotations

from tests.chaos.notes import BATCH, batches


def test_all_ids_are_asked_for_once() -> None:
    """In filters that are not too long."""
    ids = [f"{number:064x}" for number in range(2 * BATCH + 1)]
    found = list(batches(ids))
    assert [len(some) for some in found] == [BATCH, BATCH, 1]
    assert [id_ for some in found for id_ in some] == ids
    assert list(batches([])) == []
