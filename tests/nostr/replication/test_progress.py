"""What was announced, what need not be, and what is announced again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.nostr.replication import progress as module
from pyryrelay.nostr.replication.progress import AGAIN_S, SAFE_S, Progress


def test_what_is_stored_waits() -> None:
    """Until it is announced."""
    progress = Progress(5, 7, 0.0)
    assert (progress.announced, progress.waiting) == (5, 2)
    progress.stored(9)
    progress.stored(8)
    assert progress.waiting == 4
    progress.advance(9, 1.0)
    assert progress.waiting == 0


def test_what_was_taken_in_does_not_wait() -> None:
    """Events of others are left out as soon as they are next, and known when they are not."""
    progress = Progress(5, 5, 0.0)
    progress.taken_in([6, 7])
    assert (progress.announced, progress.waiting) == (7, 0)
    progress.stored(8)
    progress.taken_in([9, 10])
    assert (progress.announced, progress.waiting) == (7, 3)
    assert [progress.is_told(seq) for seq in (8, 9, 10)] == [False, True, True]
    progress.advance(8, 0.5)
    assert (progress.announced, progress.waiting) == (10, 0)


def test_the_highest_number_that_was_announced_never_falls() -> None:
    """Whoever has announced it, also ahead of others, and in the next process."""
    progress = Progress(0, 10, 0.0)
    assert progress.top == 0
    progress.advance(5, 1.0)
    assert progress.top == 5
    progress.announced_ahead(8)
    assert progress.top == 8
    progress.taken_in([12])
    progress.rewind(2.0)
    assert (progress.announced, progress.top) == (0, 12)
    progress.advance(6, 3.0)
    assert progress.top == Progress(6, 12, 0.0, progress.foreign).top == 12


def test_the_last_minute_is_announced_again() -> None:
    """Counted from the last success: an outage may be much longer. What others have announced is still known then."""
    progress = Progress(0, 0, 0.0)
    for second in range(1, 101):
        progress.advance(second, float(second))
    assert progress.kept == 100 - AGAIN_S - 1
    progress.taken_in([101])
    progress.stored(102)
    progress.rewind(10_000.0)
    assert progress.announced == progress.kept == 39
    assert progress.is_told(101)
    progress.advance(102, 10_001.0)
    assert (progress.kept, progress.waiting) == (39, 0)
    progress.advance(103, 10_061.0)
    progress.advance(103, 10_121.0)
    assert progress.kept == 102
    assert not progress.is_told(101)


def test_an_outage_may_follow_another_one() -> None:
    """As long as a minute has not passed, nothing of it counts as safe."""
    progress = Progress(0, 0, 0.0)
    progress.advance(50, 10.0)
    for now in (20.0, 21.0, 22.0):
        progress.rewind(now)
        assert progress.announced == 0
        progress.advance(50, now + 0.5)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of events of others the oldest are forgotten, and announced once more."""
    monkeypatch.setattr(module, "MAX_FOREIGN", 3)
    progress = Progress(0, 0, 0.0)
    progress.stored(1)
    progress.taken_in(range(2, 7))
    assert [seq for seq in range(8) if progress.is_told(seq)] == [4, 5, 6]
    assert progress.waiting == 6
    monkeypatch.setattr(module, "MAX_RANGES", 1)
    progress.taken_in([9])
    assert progress.foreign == "9-9"


def test_the_next_process_knows_what_others_have_announced() -> None:
    """If this one ends in order; of many ranges it knows the highest."""
    progress = Progress(0, 0, 0.0)
    progress.taken_in([3, 4, 5, 8])
    progress.stored(9)
    assert progress.foreign == "3-5,8-8"
    heir = Progress(progress.kept, 9, 0.0, progress.foreign)
    assert [seq for seq in range(10) if heir.is_told(seq)] == [3, 4, 5, 8]
    assert Progress(2, 9, 0.0, progress.foreign).announced == 5
    assert Progress(9, 9, 0.0, progress.foreign).foreign == ""


def test_what_was_announced_ahead_does_not_wait() -> None:
    """It is left out when it is next, unless a server may have lost it. The next process announces it again."""
    progress = Progress(0, 5, 0.0)
    for seq in (6, 8):
        progress.announced_ahead(seq)
    assert (progress.waiting, progress.is_told(6), progress.is_told(7)) == (8, True, False)
    progress.advance(5, 1.0)
    assert (progress.announced, progress.waiting) == (6, 2)
    assert progress.foreign == ""
    progress.advance(7, 2.0)
    assert (progress.announced, progress.waiting, progress.is_told(8)) == (8, 0, False)
    progress.announced_ahead(9)
    progress.announced_ahead(11)
    progress.rewind(4.0)
    assert (progress.announced, progress.waiting, progress.is_told(11)) == (0, 11, False)


def test_what_is_announced_ahead_is_no_success() -> None:
    """It may have gone to another server than what fails meanwhile, whose last minute begins before that."""
    progress = Progress(0, 1000, 0.0)
    progress.advance(50, 10.0)
    for second in range(11, 200):
        progress.announced_ahead(1000 + second)
    progress.rewind(200.0)
    assert progress.announced == 0


def test_a_crash_loses_only_seconds() -> None:
    """Less than an outage of a server may."""
    progress = Progress(0, 0, 0.0)
    assert progress.safe == 0
    for second in range(1, 101):
        progress.advance(second, float(second))
    assert progress.safe == 100 - SAFE_S - 1


@given(st.lists(st.sampled_from(["own", "foreign", "announce", "ahead", "rewind", "minute"]), max_size=60))
def test_no_own_event_is_left_out(steps: list[str]) -> None:
    """Whatever happens, what is not waiting was announced, and since the last rewinding if it may have been lost."""
    progress, now, last = Progress(0, 0, 0.0), 0.0, 0
    own: dict[int, float | None] = {}
    success = 0.0
    for step in steps:
        now += 0.4
        if step == "minute":
            now += AGAIN_S
        elif step == "own":
            last += 1
            own[last] = None
            progress.stored(last)
        elif step == "foreign":
            last += 1
            progress.taken_in([last])
            progress.stored(last)
        elif step == "ahead" and own and not progress.is_told(max(own)):
            own[max(own)] = now
            progress.announced_ahead(max(own))
        elif step == "announce" and progress.waiting:
            for seq in range(progress.announced + 1, last + 1):
                if seq in own and not progress.is_told(seq):
                    own[seq] = now
            progress.advance(last, now)
            success = now
        elif step == "rewind":
            own = {seq: at if at is not None and at <= success - AGAIN_S else None for seq, at in own.items()}
            progress.rewind(now)
        assert all(seq > progress.announced and not progress.is_told(seq) for seq, at in own.items() if at is None)
        assert progress.kept <= progress.announced <= progress.last == last
