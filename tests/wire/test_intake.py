"""The intake: an application's pause, a debt with the quotas, and nothing else; told the time."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard import ByteQuota, Quota, ThrottlePolicy
from pyryrelay.wire.intake import Intake

EXCESS_S = 30.0
FRAMES = ThrottlePolicy(frames=Quota.parse("1/s burst 5"), excess_timeout_s=EXCESS_S)
START_S = 100.0


def reads(intake: Intake) -> bool:
    """Whether the peer is read from."""
    return intake.is_open


def charged(intake: Intake, frames: int, now: float = START_S) -> bool:
    """Receive frames in one chunk, and pay for them."""
    intake.frames += frames
    return intake.charge(10 * frames, now)


def test_an_intake_without_quotas_is_not_metered() -> None:
    """Where nothing is to be enforced nobody need ask, and nobody is ever in debt."""
    intake = Intake(ThrottlePolicy())
    assert not intake.is_metered
    assert not charged(intake, 10_000)
    assert reads(intake)
    assert intake.due_s == inf


def test_within_the_burst_the_intake_stays_open() -> None:
    """The tokens of a burst may be spent at once; the counters begin anew with each charge."""
    intake = Intake(FRAMES)
    assert intake.is_metered
    assert not charged(intake, 3)
    assert not charged(intake, 2)
    assert intake.frames == intake.pings == 0
    assert reads(intake)


def test_a_debt_closes_the_intake_until_it_is_paid() -> None:
    """Two tokens of debt at one a second are two seconds, and not less."""
    intake = Intake(FRAMES)
    assert charged(intake, 7)
    assert not reads(intake)
    assert intake.due_s == START_S + 2.0
    assert (intake.debt_s(START_S), intake.debt_s(START_S + 1.5), intake.debt_s(START_S + 3.0)) == (2.0, 0.5, 0.0)
    assert intake.check(START_S + 1.999)
    assert not reads(intake)
    assert intake.check(START_S + 2.0)
    assert reads(intake)
    assert intake.due_s == inf


@pytest.mark.parametrize(
    ("policy", "size", "pings", "wait_s"),
    [
        (ThrottlePolicy(bytes=ByteQuota.parse("100/s burst 1 KiB")), 1124, 0, 1.0),
        (ThrottlePolicy(pings=Quota.parse("1/2s burst 3")), 10, 5, 4.0),
        (ThrottlePolicy(Quota.parse("1/s"), ByteQuota.parse("1/s"), Quota.parse("1/s")), 9, 5, 8.0),
    ],
)
def test_every_quota_counts(policy: ThrottlePolicy, size: int, pings: int, wait_s: float) -> None:
    """Bytes and pings have quotas of their own, and the longest wait is the one that holds."""
    intake = Intake(policy)
    intake.pings = intake.frames = pings
    assert intake.charge(size, START_S)
    assert intake.due_s == pytest.approx(START_S + wait_s)


def test_a_smaller_debt_does_not_shorten_a_larger_one() -> None:
    """What still arrives while the peer is in debt with one quota may put it in debt with another, for less long."""
    intake = Intake(ThrottlePolicy(Quota.parse("1/s burst 1"), ByteQuota.parse("100/s burst 100")))
    assert charged(intake, 9)
    assert intake.due_s == START_S + 8.0
    assert intake.charge(110, START_S)
    assert intake.due_s == START_S + 8.0


def test_the_applications_pause_is_its_own() -> None:
    """A debt that is paid does not resume a paused peer, and resuming it does not forgive a debt."""
    intake = Intake(FRAMES)
    intake.paused = True
    assert not reads(intake)
    charged(intake, 7)
    intake.paused = False
    assert not reads(intake)
    intake.paused = True
    assert intake.check(START_S + 2.0)
    assert not reads(intake)
    intake.paused = False
    assert reads(intake)


def test_excess_without_an_end_is_told() -> None:
    """Whoever is in debt again as soon as it may send has its time, counted from the first debt."""
    intake, now = Intake(FRAMES), START_S
    charged(intake, 5)
    while intake.check(now):
        assert charged(intake, 3, now)
        now = intake.due_s
    assert now == START_S + EXCESS_S


def test_other_quotas_begin_anew() -> None:
    """Debts, counters and excess under the old quotas are nothing under the new ones."""
    intake = Intake(ThrottlePolicy(frames=Quota.parse("1/hour")))
    charged(intake, 100)
    intake.frames = intake.pings = 50
    intake.meter(FRAMES)
    assert reads(intake)
    assert not charged(intake, 5)
    assert intake.check(START_S + 1000.0)
    intake.meter(ThrottlePolicy())
    assert not intake.is_metered


@given(steps=st.lists(st.tuples(st.sampled_from(["charge", "pause", "resume", "check"]), st.integers(0, 9))))
def test_it_is_open_if_neither_holds(steps: list[tuple[str, int]]) -> None:
    """Whatever happens in which order: open if it is not paused and the last debt was found paid."""
    intake, now, paused, until_s = Intake(FRAMES), START_S, False, -inf
    tokens, told_at_s = 5.0, START_S
    for step, number in steps:
        if step == "charge":
            tokens = min(5.0, tokens + now - told_at_s) - number
            told_at_s = now
            if number and tokens < 0:
                until_s = now - tokens
            charged(intake, number, now)
        elif step == "check":
            now += number
            if not intake.check(now):
                return
            if now >= until_s:
                until_s = -inf
        else:
            intake.paused = paused = step == "pause"
        assert reads(intake) == (not paused and until_s == -inf)
