"""Whether a peer is read from: an application's pause, and a debt with the quotas."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard import ByteQuota, Quota, ThrottlePolicy
from pyryrelay.websocket.reading.read_pause import ReadPause

EXCESS_S = 30.0
FRAMES = ThrottlePolicy(frames=Quota.parse("1/s burst 5"), excess_timeout_s=EXCESS_S)
START_S = 100.0


def reads(read_pause: ReadPause) -> bool:
    """Tell whether the peer is read from."""
    return read_pause.is_open


def charged(read_pause: ReadPause, frames: int, now: float = START_S) -> bool:
    """Receive frames in one chunk, and pay for them."""
    read_pause.frames += frames
    return read_pause.charge(10 * frames, now)


def test_reading_without_quotas_is_not_metered() -> None:
    """Without quotas reading is not metered, and there is never a debt."""
    read_pause = ReadPause(ThrottlePolicy())
    assert not read_pause.is_metered
    assert not charged(read_pause, 10_000)
    assert reads(read_pause)
    assert read_pause.due_s == inf


def test_within_the_burst_there_is_no_pause() -> None:
    """The tokens of a burst may be spent at once; the counters start anew with each charge."""
    read_pause = ReadPause(FRAMES)
    assert read_pause.is_metered
    assert not charged(read_pause, 3)
    assert not charged(read_pause, 2)
    assert read_pause.frames == read_pause.pings == 0
    assert reads(read_pause)


def test_a_debt_pauses_reading_until_it_is_paid() -> None:
    """Two tokens of debt at one a second pause reading for two seconds."""
    read_pause = ReadPause(FRAMES)
    assert charged(read_pause, 7)
    assert not reads(read_pause)
    assert read_pause.due_s == START_S + 2.0
    assert (read_pause.debt_s(START_S), read_pause.debt_s(START_S + 1.5), read_pause.debt_s(START_S + 3.0)) == (
        2.0,
        0.5,
        0.0,
    )
    assert read_pause.check(START_S + 1.999)
    assert not reads(read_pause)
    assert read_pause.check(START_S + 2.0)
    assert reads(read_pause)
    assert read_pause.due_s == inf


@pytest.mark.parametrize(
    ("policy", "size", "pings", "wait_s"),
    [
        (ThrottlePolicy(bytes=ByteQuota.parse("100/s burst 1 KiB")), 1124, 0, 1.0),
        (ThrottlePolicy(pings=Quota.parse("1/2s burst 3")), 10, 5, 4.0),
        (ThrottlePolicy(frames=Quota.parse("1/s"), bytes=ByteQuota.parse("1/s"), pings=Quota.parse("1/s")), 9, 5, 8.0),
    ],
)
def test_every_quota_counts(policy: ThrottlePolicy, size: int, pings: int, wait_s: float) -> None:
    """Bytes and pings have quotas of their own, and the longest wait holds."""
    read_pause = ReadPause(policy)
    read_pause.pings = read_pause.frames = pings
    assert read_pause.charge(size, START_S)
    assert read_pause.due_s == pytest.approx(START_S + wait_s)


def test_a_smaller_debt_does_not_shorten_a_larger_one() -> None:
    """A shorter debt with another quota does not shorten a pause."""
    read_pause = ReadPause(ThrottlePolicy(frames=Quota.parse("1/s burst 1"), bytes=ByteQuota.parse("100/s burst 100")))
    assert charged(read_pause, 9)
    assert read_pause.due_s == START_S + 8.0
    assert read_pause.charge(110, START_S)
    assert read_pause.due_s == START_S + 8.0


def test_the_applications_pause_is_its_own() -> None:
    """A debt that is paid does not resume a paused peer, and resuming it does not end a debt."""
    read_pause = ReadPause(FRAMES)
    read_pause.paused = True
    assert not reads(read_pause)
    charged(read_pause, 7)
    read_pause.paused = False
    assert not reads(read_pause)
    read_pause.paused = True
    assert read_pause.check(START_S + 2.0)
    assert not reads(read_pause)
    read_pause.paused = False
    assert reads(read_pause)


def test_excess_without_an_end_is_reported() -> None:
    """A peer that is always in debt again is reported after its time, counted from the first debt."""
    read_pause, now = ReadPause(FRAMES), START_S
    charged(read_pause, 5)
    while read_pause.check(now):
        assert charged(read_pause, 3, now)
        now = read_pause.due_s
    assert now == START_S + EXCESS_S


@pytest.mark.parametrize("reason", ["paused", "pending", "put_off"])
@pytest.mark.parametrize("other", ["paused", "pending", "put_off"])
def test_each_reason_counts_by_itself(reason: str, other: str) -> None:
    """The end of one reason not to read is not the end of another."""
    read_pause = ReadPause(ThrottlePolicy())
    setattr(read_pause, reason, True)
    assert not reads(read_pause)
    setattr(read_pause, other, True)
    setattr(read_pause, reason, False)
    assert reads(read_pause) == (reason == other)
    setattr(read_pause, other, False)
    assert reads(read_pause)


def test_other_quotas_begin_anew() -> None:
    """New quotas start without the debts, counters and excess of the old ones."""
    read_pause = ReadPause(ThrottlePolicy(frames=Quota.parse("1/hour")))
    charged(read_pause, 100)
    read_pause.frames = read_pause.pings = 50
    read_pause.meter(FRAMES)
    assert reads(read_pause)
    assert not charged(read_pause, 5)
    assert read_pause.check(START_S + 1000.0)
    read_pause.meter(ThrottlePolicy())
    assert not read_pause.is_metered


@given(steps=st.lists(st.tuples(st.sampled_from(["charge", "pause", "resume", "check"]), st.integers(0, 9))))
def test_a_peer_is_read_from_if_neither_pauses_it(steps: list[tuple[str, int]]) -> None:
    """In any order of events, a peer is read from if it is not paused and the last debt was found paid."""
    read_pause, now, paused, until_s = ReadPause(FRAMES), START_S, False, -inf
    tokens, told_at_s = 5.0, START_S
    for step, number in steps:
        if step == "charge":
            tokens = min(5.0, tokens + now - told_at_s) - number
            told_at_s = now
            if number and tokens < 0:
                until_s = now - tokens
            charged(read_pause, number, now)
        elif step == "check":
            now += number
            if not read_pause.check(now):
                return
            if now >= until_s:
                until_s = -inf
        else:
            read_pause.paused = paused = step == "pause"
        assert reads(read_pause) == (not paused and until_s == -inf)
