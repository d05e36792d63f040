"""What the relay does to its own process."""

from __future__ import annotations

import gc

from pyryrelay.process import spare_the_collector


def test_what_was_there_at_the_start_is_not_collected_again() -> None:
    """The collector's list is empty afterwards, but for what is made from then on."""
    before = len(gc.get_objects())
    try:
        spare_the_collector()
        assert gc.get_freeze_count() > 0
        assert len(gc.get_objects()) < before / 10
    finally:
        gc.unfreeze()
