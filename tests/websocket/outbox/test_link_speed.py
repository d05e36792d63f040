"""How much the kernel may hold for a line of a given speed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.websocket.outbox.link_speed import FAST_BYTES_PER_S, LinkSpeed

MEGABIT = 125_000.0


def test_the_speed_is_an_average_of_what_was_measured() -> None:
    """A single measurement changes the speed by a quarter of the difference."""
    line = LinkSpeed(MEGABIT)
    line.record(30_000, 0.24)
    assert line.bytes_per_s == MEGABIT
    line.record(30_000, 0.12)
    assert line.bytes_per_s == 1.25 * MEGABIT
    assert line.is_slow


def test_a_line_that_becomes_fast_is_not_slow_any_more() -> None:
    """A line counts as fast soon after it became fast, even if no time passed on the clock."""
    line = LinkSpeed(100.0)
    line.record(65_536, 0.0)
    assert not line.is_slow


@pytest.mark.parametrize(
    ("bytes_per_s", "slice_bytes"), [(1.0, 4096), (8000.0, 4096), (MEGABIT, 7812), (FAST_BYTES_PER_S, 62_500)]
)
def test_a_slice_is_a_sixteenth_of_a_second(bytes_per_s: float, slice_bytes: int) -> None:
    """A slice is what the line takes in a sixteenth of a second, with a minimum that keeps the overhead small."""
    assert LinkSpeed(bytes_per_s).slice_bytes == slice_bytes


def test_a_kernel_that_holds_what_the_line_needs_is_left_alone() -> None:
    """A kernel that holds no more than the line needs is not limited."""
    line = LinkSpeed(MEGABIT)
    assert line.kernel_bytes(30_000, 0.04, None) is None
    assert line.kernel_bytes(31_000, 0.04, None) == 22_812


def test_once_limited_it_stays_so_until_the_line_is_fast() -> None:
    """A limit stays until the line is fast, since the kernel's amount is that of the limit then."""
    line = LinkSpeed(MEGABIT)
    assert line.kernel_bytes(10, 0.04, 22_812) == 22_812
    assert LinkSpeed(10.0).kernel_bytes(10, 0.04, 22_812) == 8192


@given(
    bits_per_s=st.floats(64e3, 7e6),
    round_trip_s=st.floats(0.001, 0.6),
    first=st.floats(100.0, FAST_BYTES_PER_S),
)
def test_a_limit_does_not_make_a_line_slow(bits_per_s: float, round_trip_s: float, first: float) -> None:
    """If the limit is what bounds the speed, it grows until the line does."""
    speed, line = bits_per_s / 8, LinkSpeed(first)
    limit: int | None = 8192
    for _ in range(200):
        limit = line.kernel_bytes(limit or 0, round_trip_s, limit)
        assert limit is not None
        speed_now = min(speed, limit / 2 / round_trip_s)
        line.record(int(speed_now), 1.0)
    assert line.bytes_per_s > 0.9 * speed
