"""What the relay does to its own process."""

from __future__ import annotations

import gc
from types import SimpleNamespace

from pyryrelay.runtime.process import YOUNGEST_OBJECTS, tune_gc, tune_malloc


def test_what_was_there_at_the_start_is_not_collected_again() -> None:
    """The collector's list is empty afterwards, but for what is made from then on; it is looked through less often."""
    threshold = gc.get_threshold()
    gc.unfreeze()  # what other tests in this process have frozen
    before = len(gc.get_objects())
    try:
        tune_gc()
        assert gc.get_freeze_count() > 0
        assert len(gc.get_objects()) < before / 10
        assert gc.get_threshold() == (YOUNGEST_OBJECTS, *threshold[1:])
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)


def test_large_buffers_are_kept_where_the_c_library_can() -> None:
    """GNU's allocator is told from which size on memory is the system's, and how much of it to keep; others are not."""
    told: list[tuple[int, int]] = []

    def mallopt(option: int, value: int) -> int:
        told.append((option, value))
        return 1

    assert tune_malloc(SimpleNamespace(mallopt=mallopt))
    assert told == [(-3, 1 << 20), (-1, 1 << 24)]
    assert not tune_malloc(SimpleNamespace(mallopt=lambda option, value: 0))
    assert not tune_malloc(SimpleNamespace())
