"""Deadlines by key: the earliest first, with memory in proportion to live ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.pyry.deadlines import Deadlines


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 20)), max_size=60), st.integers(0, 20))
def test_behaves_like_a_sorted_dict(steps: list[tuple[int, int | None]], now: int) -> None:
    """Setting replaces, dropping forgets, and due deadlines are returned in order."""
    deadlines = Deadlines()
    model: dict[str, float] = {}
    for number, at in steps:
        key = str(number)
        if at is None:
            deadlines.drop(key)
            model.pop(key, None)
        else:
            deadlines.set(key, at)
            model[key] = at
        assert deadlines.first() == min(model.values(), default=None)
    popped = []
    while (due := deadlines.pop(now)) is not None:
        popped.append(model.pop(due))
    assert popped == sorted(popped)
    assert all(at > now for at in model.values())
    assert deadlines.first() == min(model.values(), default=None)


def test_what_is_replaced_or_dropped_takes_no_memory() -> None:
    """However often deadlines change, the heap stays in proportion to live ones."""
    deadlines = Deadlines()
    for at in range(1000):
        deadlines.set("a", at)
        assert len(deadlines) <= 20
    for number in range(1000):
        deadlines.set(str(number), number)
        deadlines.drop(str(number))
        assert len(deadlines) <= 20
    assert deadlines.first() == 999
    deadlines.drop("a")
    assert deadlines.first() is None
    assert len(deadlines) == 0
