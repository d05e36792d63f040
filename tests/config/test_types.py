"""Each kind of value: what it reads and refuses, and that it can read what it writes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.config.types import (
    BYTE_QUOTA,
    FILES,
    NETWORKS,
    OPTIONAL_FILE,
    PROXIES,
    QUOTA,
    STRIKES,
    SWITCH,
    InvalidValueError,
    OptionType,
    TrustedProxies,
    choice,
    or_auto,
    or_off,
    seconds,
    table_of,
    whole_number,
)
from pyryrelay.guard.address.lists import CidrSet
from pyryrelay.guard.rate.quota import ByteQuota, Quota

WORD: OptionType[str] = choice(("full", "none"))
CAP: OptionType[int | None] = or_off(whole_number(1))
AUTO: OptionType[bool | None] = or_auto(SWITCH)
ANSWERS = table_of(("teapot", "gone"), ("answer", "drop"), "WORD=answer|drop")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole_number(32, 128), "32", 32),
        (whole_number(32, 128), "128", 128),
        (whole_number(1000), "1_000_000", 1_000_000),
        (seconds(0, 3600), "0", 0.0),
        (seconds(0, 3600), "2.5", 2.5),
        (seconds(0, 3600), "3600", 3600.0),
        *((SWITCH, text, True) for text in ("true", "TRUE", "1", "yes", "on")),
        *((SWITCH, text, False) for text in ("false", "False", "0", "no", "off")),
        (QUOTA, "10/minute burst 20", Quota(10, 60.0, 20)),
        *((QUOTA, text, None) for text in ("off", "OFF", " off ")),
        *((AUTO, text, value) for text, value in (("auto", None), ("Auto", None), ("off", False), ("yes", True))),
        (BYTE_QUOTA, "16 MiB/minute", ByteQuota(2**24, 60.0, 2**24)),
        (BYTE_QUOTA, "off", None),
        (CAP, "7", 7),
        (CAP, "off", None),
        (STRIKES, "60/minute", Quota(60, 60.0, 60)),
        (STRIKES, "10000/h", Quota(10_000, 3600.0, 10_000)),
        (STRIKES, "off", None),
        (OPTIONAL_FILE, "", ""),
        (OPTIONAL_FILE, "a b", "a b"),
        (FILES, "a b", ("a b",)),
        (ANSWERS, "teapot=drop", {"teapot": "drop"}),
        (WORD, "none", "none"),
        (NETWORKS, "10.0.0.0/8", CidrSet(["10.0.0.0/8"])),
        (PROXIES, "unix", TrustedProxies(CidrSet(), unix=True)),
    ],
)
def test_reads(kind: OptionType[Any], text: str, value: object) -> None:
    """A text within the bounds of its kind, bounds included, gives its value."""
    assert kind.read((text,)) == value


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        (whole_number(32, 128), "31", "is less than 32"),
        (whole_number(32, 128), "129", "is more than 128"),
        (whole_number(1), "-1", "is less than 1"),
        (whole_number(1), "1.0", "is not a whole number"),
        (whole_number(1), "", "is not a whole number"),
        (whole_number(1), "\u0661", "is not a whole number"),
        (whole_number(1), "9" * 5000, "is not a whole number"),
        (seconds(0, 3600), "soon", "is not a number of seconds"),
        (seconds(0, 3600), "nan", "is not a number of seconds"),
        (seconds(0, 3600), "inf", "is not a number of seconds"),
        (seconds(0, 3600), "-0.1", "is not between 0 and 3600"),
        (seconds(0, 3600), "3600.1", "is not between 0 and 3600"),
        (SWITCH, "maybe", "is neither true nor false"),
        (SWITCH, "", "is neither true nor false"),
        (WORD, "Full", "is not one of the choices"),
        (QUOTA, "10/fortnight", "is not a quota"),
        (AUTO, "perhaps", "is neither true nor false"),
        (QUOTA, "0/minute", "is not a usable quota: quota count 0 is out of range"),
        (BYTE_QUOTA, "16 MB/minute", "is not a quota"),
        (CAP, "0", "is less than 1"),
        (CAP, "none", "is not a whole number"),
        (STRIKES, "1/minute", "is not from 2 to 10000 times"),
        (STRIKES, "10001/minute", "is not from 2 to 10000 times"),
        (STRIKES, "60/minute burst 60", "has a burst, which means nothing here"),
        (STRIKES, "often", "is not a quota"),
        (OPTIONAL_FILE, "a\0b", "is no path"),
        (FILES, "", "is no path"),
        (FILES, "a\0b", "is no path"),
        (ANSWERS, "teapot", "is not WORD=answer|drop"),
        (ANSWERS, "pot=drop", "is not WORD=answer|drop"),
        (ANSWERS, "teapot=cut", "is not WORD=answer|drop"),
        (ANSWERS, "", "is not WORD=answer|drop"),
        (NETWORKS, "10.0.0.1/8", "has host bits set"),
        (PROXIES, "Unix", "is not a network"),
    ],
)
def test_refuses(kind: OptionType[Any], text: str, problem: str) -> None:
    """A text that does not fit its kind is named, with the problem."""
    with pytest.raises(InvalidValueError) as caught:
        kind.read((text,))
    assert (caught.value.text, caught.value.problem) == (text, problem)


def test_the_guards_own_fix_is_kept() -> None:
    """Where the guard suggests what a text probably means, its suggestion is the fix."""
    with pytest.raises(InvalidValueError) as caught:
        NETWORKS.read(("192.0.2.0/24", "10.0.0.1/8"))
    assert caught.value.text == "10.0.0.1/8"
    assert "10.0.0.0/8" in caught.value.fix


def test_proxies_take_networks_and_the_word_unix_in_any_order() -> None:
    """`unix` may stand anywhere among the networks."""
    wanted = TrustedProxies(CidrSet(["10.0.0.0/8", "::1"]), unix=True)
    assert PROXIES.read(("10.0.0.0/8", "unix", "::1")) == wanted


@pytest.mark.parametrize(
    ("proxies", "some"),
    [
        (TrustedProxies(CidrSet()), False),
        (TrustedProxies(CidrSet(["::1"])), True),
        (TrustedProxies(CidrSet(), unix=True), True),
    ],
)
def test_proxies_are_true_when_there_are_some(proxies: TrustedProxies, some: bool) -> None:
    """Trusted proxies are true with networks or UNIX-domain peers, and false without."""
    assert bool(proxies) is some


def _round_trip(kind: OptionType[Any], value: object) -> bool:
    return bool(kind.read(kind.write(value)) == value)


@given(st.integers(1), st.floats(0, 3600), st.booleans())
def test_numbers_and_switches_read_what_they_write(number: int, grace: float, on: bool) -> None:
    """Numbers and switches keep their value when written and read."""
    assert _round_trip(whole_number(1), number)
    assert _round_trip(seconds(0, 3600), grace)
    assert _round_trip(SWITCH, on)


@given(st.lists(st.ip_addresses(), max_size=5), st.booleans())
def test_networks_read_what_they_write(addresses: list[Any], unix: bool) -> None:
    """Networks keep their order and repetitions when written and read."""
    networks = CidrSet(str(address) for address in addresses if getattr(address, "scope_id", None) is None)
    assert _round_trip(NETWORKS, networks)
    assert _round_trip(PROXIES, TrustedProxies(networks, unix))


@given(st.sampled_from(("full", "none")), st.integers(1, 1000), st.sampled_from((1, 60, 3600)))
def test_words_and_quotas_read_what_they_write(word: str, count: int, period_s: int) -> None:
    """Words and quotas keep their value when written and read."""
    assert _round_trip(WORD, word)
    assert _round_trip(QUOTA, Quota(count, float(period_s), count))


@given(st.none() | st.integers(1, 10_000), st.sampled_from((1, 60, 300)))
def test_what_may_be_off_reads_what_it_writes(count: int | None, period_s: int) -> None:
    """Options that can be off keep their value when written and read, off or not."""
    quota = None if count is None else Quota(count, float(period_s), count)
    size = None if count is None else ByteQuota(1024 * count, float(period_s), 3 * count)
    assert _round_trip(CAP, count)
    assert _round_trip(QUOTA, quota)
    assert _round_trip(BYTE_QUOTA, size)
    if count != 1:
        assert _round_trip(STRIKES, quota)


@given(st.dictionaries(st.sampled_from(("teapot", "gone")), st.sampled_from(("answer", "drop"))))
def test_tables_read_what_they_write(table: dict[str, str]) -> None:
    """Tables keep their entries when written and read; the last entry for a word counts."""
    assert _round_trip(ANSWERS, table)
    assert ANSWERS.read((*ANSWERS.write(table), "gone=drop"))["gone"] == "drop"


def test_off_is_in_every_fix() -> None:
    """The fix for an option that can be off mentions `off`."""
    for kind in (QUOTA, BYTE_QUOTA, CAP, STRIKES):
        with pytest.raises(InvalidValueError) as caught:
            kind.read(("nonsense",))
        assert (caught.value.fix or kind.fix).endswith(", or off")
