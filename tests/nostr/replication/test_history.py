"""When events were announced: never later than said, as far back as there are marks, and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.nostr.replication import history as module
from pyryrelay.nostr.replication.history import MAX_MARKS, Back, History


def noted(*marks: tuple[int, int], is_first: bool = True) -> History:
    """Return a history that began at 1000 with nothing, and had announced so much by these times."""
    history = History("", 0, 1000, is_first=is_first)
    for wall_s, announced in marks:
        history.note(announced, announced, 0, wall_s)
    return history


def test_it_goes_back_to_the_newest_mark_before_a_time() -> None:
    """Marks are a minute apart; where nothing was announced there are none."""
    history = noted((1060, 5), (1090, 7), (1120, 8), (1180, 8), (1240, 9))
    assert history.text == "0:0 1060:5 1120:8 1240:9"
    wanted = {1059: 0, 1060: 5, 1119: 5, 1239: 8, 5000: 9}
    for since_s, seq in wanted.items():
        assert history.back_to(since_s, 9, 5000) == (seq, since_s)


def test_another_process_goes_on_with_it() -> None:
    """What it is about to announce again was not announced."""
    heir = History(noted((1060, 5), (1120, 8)).text, 6, 2000, is_first=False)
    assert heir.back_to(1500, 6, 2000) == (5, 1500)
    assert heir.back_to(1000, 6, 2000) == (0, 1000)


def test_what_is_not_known_is_said() -> None:
    """A relay that has announced events without noting when."""
    history = History("", 7, 1000, is_first=False)
    assert history.back_to(500, 7, 2000) == (7, 1000)
    assert History("nonsense", 7, 1000, is_first=False).back_to(500, 7, 2000) == (7, 1000)


def test_what_is_announced_once_more_is_not_old() -> None:
    """After an outage, marks above where the announcing goes on are gone."""
    history = noted((1060, 5), (1120, 8))
    history.note(6, 5, 1, 1121)
    assert history.back_to(1130, 8, 1140) == (6, 1130)
    history.note(8, 5, 1, 1185)
    assert history.back_to(1190, 8, 1200) == (8, 1190)


def test_it_does_not_go_back_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says since when everything is announced again."""
    monkeypatch.setattr(module, "MAX_AGAIN", 100)
    history = noted((1060, 50), (1120, 150), (1180, 160))
    assert history.back_to(1000, 140, 1200) == Back(50, 1060)
    assert history.back_to(1000, 200, 1200) == Back(150, 1120)
    assert history.back_to(1000, 500, 1200) == Back(400, 1200)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3)), max_size=400), st.integers(0, 40_000))
def test_nothing_that_was_announced_since_is_left_out(steps: list[tuple[int, int]], ago_s: int) -> None:
    """However much was thinned out, and also in the next process. Marks are few."""
    history, wall_s, announced = History("", 0, 0, is_first=True), 0, 0
    at: dict[int, int] = {}
    for passed_s, count in steps:
        wall_s += passed_s
        for _ in range(count):
            announced += 1
            at[announced] = wall_s
        history.note(announced, announced, 0, wall_s)
    since_s = max(0, wall_s - ago_s)
    for each in (history, History(history.text, announced, wall_s, is_first=False)):
        back = each.back_to(since_s, announced, wall_s)
        assert all(seq > back.seq for seq, at_s in at.items() if at_s > since_s)
        assert back.since_s == since_s
    assert len(history.text.split()) <= MAX_MARKS
