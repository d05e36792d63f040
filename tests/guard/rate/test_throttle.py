"""How fast one connection may send: debts, pauses, and when a sender is given up."""

from __future__ import annotations

from math import inf, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.guard.errors import LimitError
from pyryrelay.guard.rate.gcra import RESOLUTION_S, charge
from pyryrelay.guard.rate.quota import ByteQuota, Quota
from pyryrelay.guard.rate.throttle import PAUSE_FORGETS_S, Throttle, ThrottlePolicy

EXCESS_S = 30.0

FRAMES = Quota.parse("10/s burst 20")
BYTES = ByteQuota.parse("1 KiB/s burst 4 KiB")
PINGS = Quota.parse("1/s burst 2")
ALL = ThrottlePolicy(frames=FRAMES, bytes=BYTES, pings=PINGS, excess_timeout_s=EXCESS_S)
ONLY_FRAMES = ThrottlePolicy(frames=FRAMES, excess_timeout_s=EXCESS_S)
NAMES = ("frames", "bytes", "pings")

CHUNKS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.9, PAUSE_FORGETS_S, 1.1, 5.0, 40.0]) | st.floats(0.0, 3.0),
        st.integers(0, 50),
        st.integers(0, 10_000),
        st.integers(0, 4),
    ),
    max_size=60,
)


def throttled(policy: ThrottlePolicy) -> Throttle:
    """Return the state of a connection that sends frames, bytes and pings."""
    return Throttle(policy, NAMES)


@pytest.mark.parametrize(
    ("policy", "enforces"),
    [
        (ThrottlePolicy(), False),
        (ONLY_FRAMES, True),
        (ThrottlePolicy(bytes=BYTES), True),
        (ThrottlePolicy(pings=PINGS), True),
    ],
)
def test_a_policy_without_quotas_is_false(policy: ThrottlePolicy, enforces: bool) -> None:
    """A policy is true if there is something to enforce."""
    assert bool(policy) is enforces


def test_a_policy_is_a_value() -> None:
    """Policies with the same quotas by name are equal, in any order; a quota that is off is absent."""
    assert ThrottlePolicy(pings=PINGS, frames=FRAMES, events=None) == ThrottlePolicy(frames=FRAMES, pings=PINGS)
    assert hash(ThrottlePolicy(bytes=None)) == hash(ThrottlePolicy())
    assert ThrottlePolicy(frames=FRAMES) != ThrottlePolicy(pings=FRAMES)
    assert ThrottlePolicy(frames=FRAMES) != ONLY_FRAMES
    assert ALL.quotas == (("bytes", BYTES), ("frames", FRAMES), ("pings", PINGS))
    assert [ONLY_FRAMES.quota(name) for name in NAMES] == [FRAMES, None, None]


def test_names_are_the_callers() -> None:
    """The caller names what is counted, and gives amounts in that order."""
    policy = ThrottlePolicy(events=FRAMES, subscriptions=PINGS)
    throttle = Throttle(policy, ("subscriptions", "events"))
    assert throttle.charge((2, 20), 100.0) == 0.0
    assert throttle.charge((1, 0), 100.0) == pytest.approx(1.0)
    other = Throttle(policy, ("events", "filters", "subscriptions"))
    assert other.charge((20, 10**6, 2), 100.0) == 0.0
    assert other.charge((30, 0, 0), 100.0) == pytest.approx(3.0)


def test_a_quota_of_what_is_not_counted_is_refused() -> None:
    """A quota of something that is not counted is an error, at the start and later."""
    wrong = ThrottlePolicy(frames=FRAMES, events=PINGS)
    with pytest.raises(LimitError, match="'events' '1/second burst 2' counts nothing here: use frames, bytes, pings"):
        throttled(wrong)
    throttle = throttled(ONLY_FRAMES)
    with pytest.raises(LimitError):
        throttle.policy = wrong
    assert throttle.policy is ONLY_FRAMES
    assert throttle.charge((25, 0, 0), 100.0) == pytest.approx(0.5)


@given(amounts=st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(0, 50)), max_size=20), start=st.floats(0.0, 1e6))
def test_a_charge_is_that_of_gcra(amounts: list[tuple[float, int]], start: float) -> None:
    """Each quota owes exactly what `gcra.charge` says."""
    throttle, tat, now = throttled(ONLY_FRAMES), 0.0, start
    for step_s, frames in amounts:
        now += step_s
        tat, debt_s = charge(FRAMES, tat, now, frames)
        assert throttle.charge((frames, 0, 0), now) == debt_s


def test_without_quotas_there_is_no_wait() -> None:
    """A quota that is off costs nothing."""
    throttle = throttled(ThrottlePolicy())
    assert throttle.charge((10**6, 2**40, 10**6), 5.0) == 0.0
    assert throttle.times_out_at_s == inf


@pytest.mark.parametrize(
    ("chunk", "wait_s"),
    [
        ((20, 4_096, 2), 0.0),
        ((25, 0, 0), 0.5),
        ((0, 4_096 + 2_048, 0), 2.0),
        ((0, 0, 5), 3.0),
        ((25, 4_096 + 2_048, 5), 3.0),
        ((60, 4_096 + 2_048, 5), 4.0),
    ],
)
def test_the_longest_debt_is_the_wait(chunk: tuple[int, int, int], wait_s: float) -> None:
    """A burst is free; beyond it the sender waits until every quota is paid."""
    assert throttled(ALL).charge(chunk, 100.0) == pytest.approx(wait_s)


def test_a_debt_is_told_until_it_is_paid() -> None:
    """A chunk that adds nothing to a debt still has to wait for it."""
    throttle = throttled(ALL)
    assert throttle.charge((40, 0, 0), 100.0) == pytest.approx(2.0)
    assert throttle.charge((0, 10, 0), 100.5) == pytest.approx(1.5)
    assert throttle.charge((0, 10, 0), 102.0) == 0.0
    assert throttle.charge((1, 10, 0), 102.0) == pytest.approx(0.1)


def test_thirty_seconds_of_excess_are_past_hope() -> None:
    """A sender that is always in debt again is given up 30 s after the first debt."""
    throttle, now = throttled(ONLY_FRAMES), 100.0
    assert throttle.charge((20, 0, 0), now) == 0.0
    while throttle.times_out_at_s == inf:
        assert now < 100.0 + EXCESS_S
        now += throttle.charge((17, 0, 0), now)
    assert throttle.times_out_at_s == 100.0 + EXCESS_S
    assert 100.0 + EXCESS_S < now < 100.0 + EXCESS_S + 2.0


def test_one_debt_of_more_than_thirty_seconds_is_past_hope() -> None:
    """A sender with one debt of minutes is given up after 30 s, and not before."""
    throttle = throttled(ONLY_FRAMES)
    throttle.charge((620, 0, 0), 100.0)
    assert throttle.times_out_at_s == 130.0


@pytest.mark.parametrize(("policy", "timeout_s"), [(ThrottlePolicy(frames=FRAMES), 300.0), (ONLY_FRAMES, 30.0)])
def test_how_long_excess_may_last(policy: ThrottlePolicy, timeout_s: float) -> None:
    """Excess may last for five minutes, or for as long as the policy says."""
    throttle = throttled(policy)
    throttle.charge((20 + 10 * 10_000, 0, 0), 100.0)
    assert throttle.times_out_at_s == 100.0 + timeout_s


def test_excess_may_last_for_ever() -> None:
    """Without a timeout a sender is held to its quota and never given up."""
    throttle, now = throttled(ThrottlePolicy(frames=FRAMES, excess_timeout_s=None)), 100.0
    while now < 100_000.0:
        wait_s = throttle.charge((10_000, 0, 0), now)
        assert wait_s > 900.0
        assert throttle.times_out_at_s == inf
        now += wait_s


def test_a_timeout_can_be_replaced() -> None:
    """With a new timeout a sender keeps its debt, and has all of the new time."""
    throttle = throttled(ONLY_FRAMES)
    throttle.charge((10_000, 0, 0), 100.0)
    throttle.policy = ThrottlePolicy(frames=FRAMES, excess_timeout_s=60.0)
    assert throttle.times_out_at_s == inf
    assert throttle.charge((0, 0, 0), 120.0) == pytest.approx(978.0)
    assert throttle.times_out_at_s == 180.0


def test_a_debt_that_is_paid_in_time_is_not_past_hope() -> None:
    """A debt of just 30 s is paid in time."""
    throttle = throttled(ONLY_FRAMES)
    assert throttle.charge((320, 0, 0), 100.0) == pytest.approx(EXCESS_S)
    assert throttle.times_out_at_s == inf


def test_a_pause_forgives() -> None:
    """A sender that stays out of debt for a second starts anew, and one that does not goes on with its excess."""
    for gap_s, times_out_at_s in ((PAUSE_FORGETS_S - 0.1, 130.0), (PAUSE_FORGETS_S + 0.1, inf)):
        throttle = throttled(ONLY_FRAMES)
        wait_s = throttle.charge((270, 0, 0), 100.0)
        assert wait_s == pytest.approx(25.0)
        throttle.charge((90, 0, 0), 100.0 + wait_s + gap_s)
        assert throttle.times_out_at_s == times_out_at_s


@pytest.mark.parametrize(("at_s", "times_out_at_s"), [(126.0, 130.0), (nextafter(126.0, inf), inf)])
def test_a_pause_that_ends_at_the_very_instant(at_s: float, times_out_at_s: float) -> None:
    """A debt exactly a second after the last one continues its excess; a later one is new."""
    throttle = throttled(ThrottlePolicy(frames=Quota.parse("1/s burst 1"), excess_timeout_s=EXCESS_S))
    assert throttle.charge((26, 0, 0), 100.0) == 25.0
    assert throttle.charge((8, 0, 0), at_s) > 5.0
    assert throttle.times_out_at_s == times_out_at_s


def test_a_chunk_that_owes_nothing_ends_no_excess() -> None:
    """A chunk without a whole frame right after a paid debt does not end the excess."""
    throttle, now = throttled(ONLY_FRAMES), 100.0
    while now < 100.0 + EXCESS_S:
        now += throttle.charge((40, 0, 0), now)
        assert throttle.charge((0, 1, 0), now) == 0.0
    throttle.charge((40, 0, 0), now)
    assert throttle.times_out_at_s == 100.0 + EXCESS_S


def test_a_sender_that_keeps_to_its_quotas_later_is_forgiven() -> None:
    """A chunk without debt, a second after the debt was paid, ends the excess."""
    throttle = throttled(ONLY_FRAMES)
    assert throttle.charge((270, 0, 0), 100.0) == pytest.approx(25.0)
    assert throttle.charge((1, 0, 0), 126.5) == 0.0
    throttle.charge((100, 0, 0), 127.0)
    assert throttle.times_out_at_s == inf


def test_a_faster_quota_makes_no_debt() -> None:
    """A higher rate makes no debt of what a sender sent within its old quota."""
    slow = ThrottlePolicy(frames=Quota.parse("600/minute burst 1200"))
    throttle = throttled(slow)
    assert throttle.charge((600, 0, 0), 100.0) == 0.0
    throttle.policy = ThrottlePolicy(frames=Quota.parse("6000/minute burst 1200"))
    assert throttle.charge((1, 0, 0), 100.0) == 0.0
    assert throttle.times_out_at_s == inf


@pytest.mark.parametrize(
    ("name", "chunk", "quota"),
    [
        ("frames", (40, 0, 0), Quota.parse("10/s burst 21")),
        ("bytes", (0, 10_000, 0), ByteQuota.parse("1 KiB/s burst 5 KiB")),
        ("pings", (0, 0, 9), Quota.parse("1/s burst 3")),
    ],
)
def test_a_policy_is_replaced_quota_by_quota(name: str, chunk: tuple[int, int, int], quota: Quota) -> None:
    """A new quota starts full, unchanged quotas keep their debts, and all excess is forgotten."""
    throttle = throttled(ALL)
    throttle.charge((320, 40_000, 40), 100.0)
    assert throttle.times_out_at_s == 130.0
    throttle.policy = ThrottlePolicy(**dict(ALL.quotas) | {name: quota}, excess_timeout_s=EXCESS_S)
    assert throttle.policy != ALL
    assert throttle.times_out_at_s == inf
    assert throttle.charge((0, 0, 0), 100.0) > 29.0
    alone = ThrottlePolicy(**{name: ALL.quota(name)}, excess_timeout_s=EXCESS_S)
    throttle = throttled(alone)
    wait_s = throttle.charge(chunk, 100.0)
    throttle.policy = ThrottlePolicy(**{name: ALL.quota(name)}, excess_timeout_s=EXCESS_S)
    assert throttle.charge((0, 0, 0), 100.0) == wait_s > 0.0
    throttle.policy = ThrottlePolicy(**{name: quota}, excess_timeout_s=EXCESS_S)
    assert throttle.charge((0, 0, 0), 100.0) == 0.0


@given(chunks=CHUNKS, start=st.floats(0.0, 1e6), obeys=st.booleans())
def test_no_window_sees_more_than_burst_rate_and_a_chunk(
    chunks: list[tuple[float, int, int, int]], start: float, obeys: bool
) -> None:
    """In any window each quota is charged at most its burst, rate times window, and one chunk.

    The sender in this test sends nothing while it is not read from.
    """
    throttle, now, paused_until_s = throttled(ALL), start, start
    charged: list[tuple[float, tuple[int, int, int]]] = []
    for step_s, *chunk in chunks:
        now += step_s
        if now < paused_until_s:
            if not obeys:
                continue
            now = paused_until_s
        frames, size, pings = chunk
        paused_until_s = now + throttle.charge((frames, size, pings), now)
        charged.append((now, (frames, size, pings)))
    for which, quota in enumerate((FRAMES, BYTES, PINGS)):
        rate = 1 / quota.emission_interval_s
        for first, (since, _) in enumerate(charged):
            total = 0
            for until, taken in charged[first:]:
                most = quota.burst + rate * (until - since + 2 * RESOLUTION_S)
                assert total <= most
                total += taken[which]
                assert total <= most + taken[which]


@given(chunks=CHUNKS, start=st.floats(0.0, 1e6))
def test_past_hope_is_thirty_seconds_without_a_pause(chunks: list[tuple[float, int, int, int]], start: float) -> None:
    """A sender is given up exactly if every gap between its debts since 30 s was no longer than a second."""
    throttle, now = throttled(ALL), start
    debts: list[tuple[float, float]] = []
    for step_s, frames, size, pings in chunks:
        now += step_s
        wait_s = throttle.charge((frames, size, pings), now)
        if wait_s:
            if debts and now > debts[-1][1] + PAUSE_FORGETS_S:
                debts.clear()
            debts.append((now, now + wait_s))
        elif debts and now > debts[-1][1] + PAUSE_FORGETS_S:
            debts.clear()
        began_s, paid_at_s = (debts[0][0], debts[-1][1]) if debts else (inf, -inf)
        hopeless = paid_at_s > began_s + EXCESS_S
        assert throttle.times_out_at_s == (began_s + EXCESS_S if hopeless else inf)


@given(idle_s=st.floats(EXCESS_S + PAUSE_FORGETS_S + 1.0, 1e6), start=st.floats(0.0, 1e6))
def test_a_pause_gives_all_of_the_time_again(idle_s: float, start: float) -> None:
    """After a paid debt and a pause, a sender has all of 30 s again."""
    throttle = throttled(ONLY_FRAMES)
    throttle.charge((320, 0, 0), start)
    now = start + idle_s
    throttle.charge((330 + int(idle_s * 10) % 2, 0, 0), now)
    throttle.charge((1_000, 0, 0), now)
    assert throttle.times_out_at_s == now + EXCESS_S
