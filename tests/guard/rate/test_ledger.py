"""What waits to be handed out: each token once, in bounded memory."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.rate.ledger import Ledger, Spent


@given(st.lists(st.one_of(st.tuples(st.integers(0, 5), st.integers(1, 4)), st.integers(0, 3)), max_size=60))
def test_each_token_is_handed_out_once(steps: list[tuple[int, int] | int]) -> None:
    """Those of one key together, the key that came first before others, and as many keys as were asked for."""
    ledger, added, taken = Ledger[int](), Counter[int](), Counter[int]()
    waiting: list[int] = []
    for step in steps:
        if isinstance(step, int):
            handed = ledger.take(step)
            assert [spent.key for spent in handed] == waiting[:step]
            waiting = waiting[step:]
            taken.update(dict(handed))
        else:
            ledger.add(*step, most=100)
            added[step[0]] += step[1]
            waiting += [] if step[0] in waiting else [step[0]]
        assert len(ledger) == len(waiting)
        assert all(ledger.tokens(key) == added[key] - taken[key] for key in range(6))
    taken.update(dict(ledger.take(100)))
    assert taken == added


def test_memory_is_bounded() -> None:
    """Without room a new key is left out, and those that wait go on."""
    ledger, called = Ledger[str](), list[None]()
    ledger.on_change = lambda: called.append(None)
    for key in ("a", "b", "c", "a"):
        ledger.add(key, 1, most=2)
    assert ledger.take(5) == [Spent("a", 2), Spent("b", 1)]
    assert len(called) == 1
    ledger.add("c", 1, most=2)
    assert len(called) == 2
