"""Tats beside those that decide: kept while they are earlier, and forgotten with their buckets."""

from __future__ import annotations

from pyryrelay.guard.rate.earlier_tats import EarlierTats
from pyryrelay.guard.rate.tables import ShardedDict

KEY = 100


def tats() -> EarlierTats[int]:
    """Return none yet."""
    return EarlierTats(ShardedDict)


def test_only_an_earlier_tat_is_kept() -> None:
    """One that is as late as the one that decides takes no memory."""
    kept = tats()
    assert (kept.get(KEY), kept.is_used, len(kept)) == (None, False, 0)
    kept.keep(KEY, 3.0, 3.0)
    assert (kept.get(KEY), kept.is_used, len(kept)) == (None, False, 0)
    kept.keep(KEY, 2.0, 3.0)
    assert (kept.get(KEY), kept.is_used, len(kept)) == (2.0, True, 1)
    kept.keep(KEY, 3.0, 3.0)
    assert (kept.get(KEY), len(kept)) == (None, 0)


def test_one_that_is_not_kept_again_is_forgotten_at_the_second_rotation() -> None:
    """As the bucket is that it belongs to; then nothing is used any more."""
    kept = tats()
    kept.keep(KEY, 2.0, 3.0)
    kept.rotate(10.0)
    assert (kept.get(KEY), kept.is_used) == (2.0, True)
    kept.rotate(20.0)
    assert (kept.get(KEY), kept.is_used, len(kept)) == (None, False, 1)
    kept.dispose(5)
    assert len(kept) == 0


def test_a_tat_that_is_kept_again_is_young_again() -> None:
    """And there is one of it."""
    kept = tats()
    kept.keep(KEY, 2.0, 3.0)
    kept.rotate(10.0)
    kept.keep(KEY, 2.5, 3.0)
    assert len(kept) == 1
    kept.rotate(20.0)
    assert kept.get(KEY) == 2.5
    kept.keep(KEY, 4.0, 4.0)
    assert (kept.get(KEY), len(kept)) == (None, 0)
