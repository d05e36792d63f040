"""Two generations of keys: when keys are forgotten, and how many are freed at a time."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.rate.generations import Generations
from pyryrelay.guard.rate.tables import ShardedDict


@pytest.fixture
def generations() -> Generations[int, str]:
    """Return empty generations."""
    return Generations(ShardedDict)


def contents(generations: Generations[int, str]) -> tuple[dict[int, str], dict[int, str]]:
    """Return which keys up to 9 are in the young table and in the old one."""
    young, old = (
        {key: value for key in range(10) if (value := table.get(key)) is not None}
        for table in (generations.young, generations.old)
    )
    assert (len(young), len(old)) == (len(generations.young), len(generations.old))
    return young, old


def filled(*sizes: int) -> Generations[int, int]:
    """Return dropped generations of these sizes, the first one the oldest, with no remembered key."""
    generations: Generations[int, int] = Generations(ShardedDict)
    for size in sizes:
        for key in range(size):
            generations.young[key] = 0
        generations.rotate(0.0)
    generations.rotate(0.0)
    return generations


def test_starts_empty(generations: Generations[int, str]) -> None:
    """At first no key is remembered, and a rotation is due."""
    assert (contents(generations), len(generations)) == (({}, {}), 0)
    assert 0.0 - generations.rotated_at == inf


def test_a_key_is_forgotten_at_the_second_rotation(generations: Generations[int, str]) -> None:
    """A rotation makes young keys old and drops old ones, and its time is kept."""
    generations.young[1] = "a"
    generations.rotate(5.0)
    assert (contents(generations), generations.rotated_at) == (({}, {1: "a"}), 5.0)
    generations.young[2] = "b"
    generations.rotate(7.0)
    assert (contents(generations), generations.rotated_at) == (({}, {2: "b"}), 7.0)


def test_garbage_counts_until_it_is_freed(generations: Generations[int, str]) -> None:
    """`len()` counts young keys, old keys, and dropped ones that are not freed yet."""
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
    """Disposal frees dropped keys only, whatever its budget."""
    generations.young[1] = "a"
    generations.rotate(0.0)
    generations.young[2] = "b"
    generations.dispose(1_000)
    assert (contents(generations), len(generations)) == (({2: "b"}, {1: "a"}), 2)


@given(sizes=st.lists(st.integers(0, 30), max_size=5), budgets=st.lists(st.integers(0, 40), max_size=8))
def test_a_slice_is_as_big_as_its_budget(sizes: list[int], budgets: list[int]) -> None:
    """Each disposal frees as many keys as its budget, over several generations, until none are left."""
    generations = filled(*sizes)
    left = sum(sizes)
    assert len(generations) == left
    for budget in budgets:
        generations.dispose(budget)
        left = max(0, left - budget)
        assert len(generations) == left


def test_a_dropped_table_is_emptied_slice_by_slice() -> None:
    """A dropped table is freed slice by slice, and never at once."""
    generations: Generations[int, int] = Generations(ShardedDict)
    dropped = generations.young
    for key in range(100):
        dropped[key] = 0
    generations.rotate(0.0)
    generations.rotate(0.0)
    generations.dispose(30)
    assert len(dropped) == 70
