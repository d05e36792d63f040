"""When events were announced: never later than said, as far back as there are marks, and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.nostr.replication import history as module
from pyryrelay.nostr.replication.history import MAX_MARKS, Back, History, Part, Span, joined, spans_in


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


def test_a_part_ends_with_the_first_mark_after_it() -> None:
    """And has what was announced ahead by then, also in the next process."""
    history = noted((1060, 5), (1120, 8))
    history.note(9, 9, 0, 1180, 30)
    history.note(10, 10, 0, 1240)
    assert history.text == "0:0 1060:5 1120:8 1180:9:30 1240:10:30"
    for each in (history, History(history.text, 10, 2000, is_first=False)):
        assert each.between(Span(1060, 1120), 50) == Part(5, 8, 1060)
        assert each.between(Span(1060, 1121), 50) == Part(5, 30, 1060)
        assert each.between(Span(1060, 1241), 50) == Part(5, 50, 1060)
        assert each.between(Span(1130, 1130), 50) == Part(8, 30, 1130)


def test_a_part_is_not_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest of it is announced again, and it is said since when that is all."""
    monkeypatch.setattr(module, "MAX_AGAIN", 100)
    history = noted((1060, 50), (1120, 150), (1180, 160), (1240, 500), (1300, 510))
    assert history.between(Span(1000, 1100), 600) == Part(50, 150, 1060)
    assert history.between(Span(1000, 1180), 600) == Part(60, 160, 1120)
    assert history.between(Span(1070, 1240), 600) == Part(400, 500, 1240)
    unknown = History("", 1000, 1100, is_first=False)
    assert unknown.between(Span(900, 1000), 1000) == Part(1000, 1000, 1100)


def test_spans_are_joined_where_they_meet() -> None:
    """And if there are too many, although they do not."""
    apart = [Span(0, 10), Span(20, 30)]
    assert joined(apart, Span(40, 50), 3) == [*apart, Span(40, 50)]
    assert joined(apart, Span(10, 15), 3) == [Span(20, 30), Span(0, 15)]
    assert joined(apart, Span(5, 25), 3) == [Span(0, 30)]
    assert joined(apart, Span(40, 50), 2) == [Span(0, 10), Span(20, 50)]
    assert spans_in(" ".join(span.text for span in apart)) == apart
    assert spans_in("nonsense") == []
    assert Span(10, 20).wider(15) == Span(0, 35)
    assert Span(0, 35).covers(Span(10, 20))
    assert not Span(11, 35).covers(Span(10, 20))


def test_old_marks_are_thinned_out() -> None:
    """Those of the last two hours stay, and nothing is left out between those that are left."""
    count = 10 * MAX_MARKS
    history = noted(*[(1000 + 60 * minute, minute) for minute in range(1, count + 1)])
    assert len(history.text.split()) <= MAX_MARKS
    now_s = 1000 + 60 * count
    assert history.back_to(now_s - 6000, count, now_s) == (count - 100, now_s - 6000)
    part = history.between(Span(2000, 3000), count)
    assert part.first <= (2000 - 1000) // 60
    assert part.last >= (3000 - 1000) // 60


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
        until_s = wall_s - ago_s // 2
        part = each.between(Span(since_s, max(since_s, until_s)), announced)
        assert all(part.first < seq <= part.last for seq, at_s in at.items() if since_s < at_s < until_s)
        assert part.since_s == since_s
    assert len(history.text.split()) <= MAX_MARKS
