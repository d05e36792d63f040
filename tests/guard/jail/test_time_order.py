"""Keys in the order of their times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.jail.time_order import TimeOrder

TIMES = st.dictionaries(st.integers(0, 99), st.sampled_from([1.0, 2.0, 3.0, 4.0]), max_size=12)


@given(times=TIMES, removed=st.sets(st.integers(0, 99)), now=st.sampled_from([0.0, 1.0, 2.5, 4.0]))
def test_it_is_a_sorted_list(times: dict[int, float], removed: set[int], now: float) -> None:
    """Whether keys were there from the start or are added; those of one time are in the order of their numbers."""
    items = [(time_s, key) for key, time_s in times.items()]
    order, added = TimeOrder(items), TimeOrder()
    for item in items:
        added.add(*item)
    for key in removed & times.keys():
        for each in (order, added):
            each.remove(times[key], key)
    left = sorted(item for item in items if item[1] not in removed)
    due = [key for time_s, key in left if time_s <= now]
    later = [key for time_s, key in reversed(left) if time_s > now]
    for each in (order, added):
        assert each.count_due(now) == len(due)
        assert [each.due(now, most) for most in (0, 2, 99)] == [due[:0], due[:2], due]
        assert [each.latest(now, most) for most in (0, 2, 99)] == [later[:0], later[:2], later]
        if left:
            assert each.first() == left[0][1]
