"""What the relay does to its own process."""

from __future__ import annotations

import gc
from types import SimpleNamespace

from pyryrelay.runtime.process import YOUNGEST_OBJECTS, tune_gc, tune_malloc


def test_what_was_there_at_the_start_is_not_collected_again() -> None:
    """Objects of the start are not examined again, and the collector runs less often."""
    threshold = gc.get_threshold()
    gc.unfreeze()  # What other tests in this process have frozen.
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
    """glibc is told how much freed memory to keep and from which size on to map it; other libraries are not."""
    told: list[tuple[int, int]] = []

    def mallopt(option: int, value: int) -> int:
        told.append((option, value))
        return 1

    assert tune_malloc(SimpleNamespace(mallopt=mallopt))
    assert told == [(-3, 1 << 20), (-1, 1 << 24)]
    assert not tune_malloc(SimpleNamespace(mallopt=lambda option, value: 0))
    assert not tune_malloc(SimpleNamespace())
