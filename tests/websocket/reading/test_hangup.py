"""How long to process data of a peer that may have hung up."""

from __future__ import annotations

import itertools

import pytest

from pyryrelay.websocket.reading.hangup import (
    AFTER_HANGUP_S,
    CHEAP_TURN_S,
    EXPENSIVE_BYTE_S,
    PONG_AFTER_S,
    PONG_INTERVAL_S,
    HangupLimit,
)

NOW_S = 1000.0
SIZE = 1000
EXPENSIVE_S = 0.001
"""Time of a turn beyond what its bytes may cost."""


def turn(hangup: HangupLimit, expensive_s: float, now: float = NOW_S, size: int = SIZE) -> bool:
    """Process one turn that exceeds its budget by this much, and return whether to send something."""
    return hangup.record(CHEAP_TURN_S + size * EXPENSIVE_BYTE_S + expensive_s, size, now)


def test_a_peer_whose_bytes_are_cheap_is_never_asked_nor_cut_off() -> None:
    """All data of a cheap peer is processed, even after it has hung up."""
    hangup = HangupLimit()
    for has_hung_up in (False, True):
        for _ in range(10_000):
            assert hangup.may_work(has_hung_up)
            assert not turn(hangup, 0.0)
            assert not turn(hangup, -EXPENSIVE_S)


def test_a_peer_whose_bytes_are_expensive_is_probed() -> None:
    """An expensive peer is probed after some work, and at most every half second."""
    hangup, asked = HangupLimit(), []
    for number in range(2000):
        now = NOW_S + number / 1000
        assert hangup.may_work(False)
        if turn(hangup, EXPENSIVE_S, now):
            asked.append(round(now - NOW_S, 3))
    assert asked[0] == pytest.approx(PONG_AFTER_S, abs=0.0011)
    assert [later - sooner for sooner, later in itertools.pairwise(asked)] == pytest.approx(
        [PONG_INTERVAL_S] * (len(asked) - 1), abs=0.002
    )
    assert len(asked) == 4


def test_little_expensive_work_causes_no_probe() -> None:
    """A little expensive work, such as after an interruption of the process, causes no probe."""
    hangup = HangupLimit()
    assert not turn(hangup, PONG_AFTER_S / 2)
    assert not any(turn(hangup, 0.0, NOW_S + number) for number in range(100))


def test_what_a_peer_left_is_worked_on_for_a_bounded_time() -> None:
    """Expensive data of a peer that has hung up is processed for a bounded time from then on."""
    hangup = HangupLimit()
    turn(hangup, 100.0)
    spent_s = 0.0
    while hangup.may_work(True):
        assert not turn(hangup, EXPENSIVE_S, NOW_S + 100)
        assert not turn(hangup, 0.0, NOW_S + 100)
        spent_s += EXPENSIVE_S
    assert spent_s == pytest.approx(AFTER_HANGUP_S, abs=1.001 * EXPENSIVE_S)
    assert not hangup.may_work(False)
