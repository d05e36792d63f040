"""Quotas: reading, printing and bounds."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pyryrelay.guard.errors import GuardError, QuotaSyntaxError
from pyryrelay.guard.rate.quota import MAX_BYTES, MAX_COUNT, MAX_FULL_AFTER_S, MAX_PERIOD_S, ByteQuota, Quota


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("10/minute burst 20", Quota(10, 60.0, 20)),
        ("10/minute", Quota(10, 60.0, 10)),
        ("1/second", Quota(1, 1.0, 1)),
        ("5/s", Quota(5, 1.0, 5)),
        ("3/m burst 1", Quota(3, 60.0, 1)),
        ("7/hour", Quota(7, 3_600.0, 7)),
        ("7/2h burst 9", Quota(7, 7_200.0, 9)),
        ("1/30s", Quota(1, 30.0, 1)),
        ("100/5m", Quota(100, 300.0, 100)),
        ("2/day", Quota(2, 86_400.0, 2)),
        ("2/3d", Quota(2, 259_200.0, 2)),
        ("  10 / minute   burst  20 ", Quota(10, 60.0, 20)),
    ],
)
def test_text_names_count_period_and_burst(text: str, quota: Quota) -> None:
    """A quota has count, period and burst, and the burst defaults to the count."""
    assert Quota.parse(text) == quota


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "10/",
        "/minute",
        "10/fortnight",
        "10/5minute",
        "10/minutes",
        "10/minute burst",
        "10/minute burst -1",
        "10/minuteburst 20",
        "10/minute burst 20 more",
        "-1/minute",
        "1.5/minute",
        "1e3/minute",
        "\u0661/minute",
        "12345678901234/minute",
        "1 KB/minute",
        "1 kib/minute",
    ],
)
def test_other_texts_are_refused_with_the_form(text: str) -> None:
    """A text that is no quota is refused in one line with the text and the form."""
    with pytest.raises(QuotaSyntaxError) as caught:
        Quota.parse(text)
    assert repr(text) in str(caught.value)
    assert "10/minute burst 20" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0/minute", "0"),
        ("10/minute burst 0", "0"),
        ("10/0s", "0.0"),
        ("1000001/minute", "1000001"),
        ("9999999999/minute", "9999999999"),
        ("1/minute burst 1000001", "1000001"),
        ("1/367d", "31708800.0"),
        ("1/day burst 367", "367"),
    ],
)
def test_numbers_out_of_range_are_named(text: str, number: str) -> None:
    """A number out of range is refused with its name and the whole text."""
    with pytest.raises(QuotaSyntaxError) as caught:
        Quota.parse(text)
    assert repr(text) in str(caught.value)
    assert f" {number} " in str(caught.value)


@pytest.mark.parametrize("period_s", [0.5, 1.5, float("inf"), float("nan"), -60.0])
def test_periods_are_whole_positive_seconds(period_s: float) -> None:
    """A quota made in code refuses periods that its text could not express."""
    with pytest.raises(GuardError, match="whole seconds"):
        Quota(1, period_s, 1)


def test_times_of_the_default_quota() -> None:
    """Ten a minute with a burst of 20 gains a token each 6 s and is full after 120 s."""
    quota = Quota.parse("10/minute burst 20")
    assert quota.emission_interval_s == 6.0
    assert quota.full_after_s == 120.0


@pytest.mark.parametrize(
    ("quota", "text"),
    [
        (Quota(10, 60.0, 20), "10/minute burst 20"),
        (Quota(10, 60, 10), "10/minute burst 10"),
        (Quota(1, 1.0, 1), "1/second burst 1"),
        (Quota(1, 90.0, 1), "1/90s burst 1"),
        (Quota(1, 300.0, 1), "1/5m burst 1"),
        (Quota(1, 7_200.0, 1), "1/2h burst 1"),
        (Quota(1, 172_800.0, 1), "1/2d burst 1"),
    ],
)
def test_prints_with_the_largest_unit_that_divides_the_period(quota: Quota, text: str) -> None:
    """The canonical text uses the largest unit and always has the burst."""
    assert str(quota) == text


@given(count=st.integers(1, MAX_COUNT), period_s=st.integers(1, MAX_PERIOD_S), burst=st.integers(1, MAX_COUNT))
def test_text_round_trips(count: int, period_s: int, burst: int) -> None:
    """Printing a quota and reading it back gives the same quota."""
    assume(burst * period_s / count <= MAX_FULL_AFTER_S)
    quota = Quota(count, float(period_s), burst)
    assert Quota.parse(str(quota)) == quota


class TestByteQuota:
    """Quotas of bytes."""

    @pytest.mark.parametrize(
        ("text", "quota"),
        [
            ("16 MiB/minute burst 32 MiB", ByteQuota(2**24, 60.0, 2**25)),
            ("16MiB/minute", ByteQuota(2**24, 60.0, 2**24)),
            ("1 GiB/h burst 1536 MiB", ByteQuota(2**30, 3_600.0, 3 * 2**29)),
            ("4096/s burst 1  KiB", ByteQuota(4096, 1.0, 1024)),
            ("1024 GiB/s", ByteQuota(MAX_BYTES, 1.0, MAX_BYTES)),
        ],
    )
    def test_text_may_name_units(self, text: str, quota: ByteQuota) -> None:
        """KiB, MiB and GiB are powers of 1024, with or without a blank; a number without a unit counts bytes."""
        assert ByteQuota.parse(text) == quota

    @pytest.mark.parametrize("text", ["16 MB/minute", "MiB/minute", "16 MiB", "16 mib/minute", "1.5 MiB/s"])
    def test_other_texts_are_refused_with_the_form(self, text: str) -> None:
        """A text that is no quota is refused in one line that shows the form with its units."""
        with pytest.raises(QuotaSyntaxError) as caught:
            ByteQuota.parse(text)
        assert repr(text) in str(caught.value)
        assert "16 MiB/minute burst 32 MiB" in str(caught.value)

    def test_numbers_out_of_range_are_named_in_bytes(self) -> None:
        """The bound applies to the number of bytes, after the unit."""
        with pytest.raises(QuotaSyntaxError, match=rf"count {2**41} is out of range: use 1 to {MAX_BYTES}"):
            ByteQuota.parse("2048 GiB/s")

    def test_units_of_bytes_are_for_bytes(self) -> None:
        """A quota of attempts refuses units of bytes."""
        with pytest.raises(QuotaSyntaxError) as caught:
            Quota.parse("1 KiB/minute")
        assert str(caught.value) == (
            "'1 KiB/minute' is not a usable quota: "
            "'1 KiB' has a unit of bytes, and this quota counts no bytes: leave 'KiB' out"
        )
        with pytest.raises(QuotaSyntaxError, match=r"'2 MiB' has a unit .*: leave 'MiB' out"):
            Quota.parse("1/minute burst 2 MiB")

    @pytest.mark.parametrize(
        ("quota", "text"),
        [
            (ByteQuota(2**24, 60.0, 2**25), "16 MiB/minute burst 32 MiB"),
            (ByteQuota(1000, 60.0, 3 * 2**10), "1000/minute burst 3 KiB"),
            (ByteQuota(MAX_BYTES, 1.0, 1), "1024 GiB/second burst 1"),
        ],
    )
    def test_prints_with_the_largest_unit_that_divides_the_number(self, quota: ByteQuota, text: str) -> None:
        """The canonical text has the same number in its largest unit."""
        assert str(quota) == text

    def test_bytes_are_no_attempts(self) -> None:
        """Quotas of bytes and of attempts are different, even with the same numbers."""
        assert ByteQuota(1, 1.0, 1) != Quota(1, 1.0, 1)

    @given(
        count=st.integers(1, MAX_BYTES) | st.integers(1, 2**20).map(lambda kib: kib * 2**10),
        period_s=st.integers(1, MAX_PERIOD_S),
        burst=st.integers(1, MAX_BYTES) | st.integers(1, 2**10).map(lambda gib: gib * 2**30),
    )
    def test_text_round_trips(self, count: int, period_s: int, burst: int) -> None:
        """Printing a quota and reading it gives the same quota."""
        assume(burst * period_s / count <= MAX_FULL_AFTER_S)
        quota = ByteQuota(count, float(period_s), burst)
        assert ByteQuota.parse(str(quota)) == quota
