"""Two generations of keys: what is forgotten when, and how much of it is freed at a time."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.rate.generations import Generations
from pyryrelay.guard.rate.tables import ShardedDict


@pytest.fixture
def generations() -> Generations[int, str]:
    """A new one."""
    return Generations(ShardedDict)


def contents(generations: Generations[int, str]) -> tuple[dict[int, str], dict[int, str]]:
    """What keys up to 9 are in the young table and in the old one."""
    young, old = (
        {key: value for key in range(10) if (value := table.get(key)) is not None}
        for table in (generations.young, generations.old)
    )
    assert (len(young), len(old)) == (len(generations.young), len(generations.old))
    return young, old


def filled(*sizes: int) -> Generations[int, int]:
    """As many dropped generations as there are sizes, the first one the oldest; nothing that is remembered."""
    generations: Generations[int, int] = Generations(ShardedDict)
    for size in sizes:
        for key in range(size):
            generations.young[key] = 0
        generations.rotate(0.0)
    generations.rotate(0.0)
    return generations


def test_starts_empty(generations: Generations[int, str]) -> None:
    """Nobody is remembered, and whoever asks how long ago the last rotation was hears that one is due."""
    assert (contents(generations), len(generations)) == (({}, {}), 0)
    assert 0.0 - generations.rotated_at == inf


def test_a_key_is_forgotten_at_the_second_rotation(generations: Generations[int, str]) -> None:
    """A rotation makes what is young old, and what is old garbage; it tells when it was."""
    generations.young[1] = "a"
    generations.rotate(5.0)
    assert (contents(generations), generations.rotated_at) == (({}, {1: "a"}), 5.0)
    generations.young[2] = "b"
    generations.rotate(7.0)
    assert (contents(generations), generations.rotated_at) == (({}, {2: "b"}), 7.0)


def test_garbage_counts_until_it_is_freed(generations: Generations[int, str]) -> None:
    """`len()` is what takes memory: young, old, and what was dropped but not freed."""
    generations.young[1] = "a"
    generations.young[2] = "b"
    generations.rotate(0.0)
    generations.young[3] = "c"
    assert len(generations) == 3
    generations.rotate(0.0)
    generations.rotate(0.0)
    assert (contents(generations), len(generations)) == (({}, {}), 3)
    generations.dispose(2)
    assert len(generations) == 1
    generations.dispose(2)
    assert len(generations) == 0


def test_what_is_remembered_is_never_freed(generations: Generations[int, str]) -> None:
    """Disposal takes garbage alone, however much it may take."""
    generations.young[1] = "a"
    generations.rotate(0.0)
    generations.young[2] = "b"
    generations.dispose(1_000)
    assert (contents(generations), len(generations)) == (({2: "b"}, {1: "a"}), 2)


@given(sizes=st.lists(st.integers(0, 30), max_size=5), budgets=st.lists(st.integers(0, 40), max_size=8))
def test_a_slice_is_as_big_as_its_budget(sizes: list[int], budgets: list[int]) -> None:
    """Each disposal frees as many keys as it may, over several generations, and stops when none are left."""
    generations = filled(*sizes)
    left = sum(sizes)
    assert len(generations) == left
    for budget in budgets:
        generations.dispose(budget)
        left = max(0, left - budget)
        assert len(generations) == left


def test_a_dropped_table_is_emptied_slice_by_slice() -> None:
    """The table of a dropped generation stays whole but for the slice: nothing lets go of all of it at once."""
    generations: Generations[int, int] = Generations(ShardedDict)
    dropped = generations.young
    for key in range(100):
        dropped[key] = 0
    generations.rotate(0.0)
    generations.rotate(0.0)
    generations.dispose(30)
    assert len(dropped) == 70
