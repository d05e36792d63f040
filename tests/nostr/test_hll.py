"""HyperLogLog: the offset of a filter, and the registers of the authors that are counted."""

from __future__ import annotations

import hashlib
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.nostr.filters import Filter, parse_filter
from pyryrelay.nostr.hll import Registers, offset, offset_of

KEY = "0" * 32 + "5" + "0" * 31
KEYS = st.binary(min_size=32, max_size=32) | st.integers(0, 2**64).map(lambda number: number.to_bytes(32, "big"))


def registers_slowly(at: int, keys: list[bytes]) -> list[int]:
    """Return the registers for some public keys, bit by bit."""
    values = [0] * 256
    for key in keys:
        bits = "".join(f"{byte:08b}" for byte in key[at + 1 :])
        zeros = len(list(takewhile(lambda bit: bit == "0", bits)))
        values[key[at]] = max(values[key[at]], zeros + 1)
    return values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (KEY, 13),
        (KEY.replace("5", "f"), 23),
        (KEY.replace("5", "F"), 23),
        (f"30023:{KEY}:name", 13),
        (f"0:{KEY}:", 13),
        (f"30023:{KEY}:a:b\n", 13),
    ],
)
def test_offsets_of_ids_and_addresses(value: str, expected: int) -> None:
    """Of an id, a public key or an address, the digit at index 32 of the key plus 8 is the offset."""
    assert offset(value) == expected


@pytest.mark.parametrize(
    "value",
    ["", "nostr", "é\0", KEY + "0", KEY[1:], KEY + "\n", f"30023:{KEY}", f"x:{KEY}:d", f":{KEY}:d", f"٣:{KEY}:d"],
)
def test_offsets_of_other_texts(value: str) -> None:
    """Of any other text, the digit is taken from its SHA-256."""
    assert offset(value) == 8 + int(hashlib.sha256(value.encode()).hexdigest()[32], 16)


def test_the_first_value_of_the_first_tag_key_counts() -> None:
    """The offset is that of the first value of the first `#` key in the text, whatever else the filter names."""
    other = KEY.replace("5", "6")
    assert offset_of(parse_filter(f'{{"kinds":[7],"#p":["{other}","{KEY}"],"#e":["{KEY}"]}}'.encode())) == 14
    assert offset_of(parse_filter(f'{{"#e":["{KEY}"],"#p":["{other}"]}}'.encode())) == 13


@pytest.mark.parametrize("filter_", [Filter(), Filter(kinds=(1,), ids=(KEY,)), Filter(tags=(("t", ()), ("e", (KEY,))))])
def test_filters_without_a_tag_value(filter_: Filter) -> None:
    """Without a first value there is no offset."""
    assert offset_of(filter_) is None


def test_no_author() -> None:
    """Nothing counted is 256 registers of zero."""
    assert Registers(8).hex() == "00" * 256


def test_one_author() -> None:
    """The byte at the offset names the register, and the leading zero bits after it, plus 1, are its value."""
    registers = Registers(13)
    registers.add("00" * 13 + "03" + "001f" + "ff" * 16)
    assert registers.hex() == "000000" + "0c" + "00" * 252
    registers.add("ff" * 13 + "03" + "80" + "ff" * 17)
    assert registers.hex() == "000000" + "0c" + "00" * 252


def test_a_key_of_zeros() -> None:
    """If no bit is set, all of them are leading zeros."""
    registers = Registers(8)
    registers.add("00" * 32)
    assert registers.hex() == f"{23 * 8 + 1:02x}" + "00" * 255


@given(st.integers(8, 23), st.lists(KEYS, max_size=20))
def test_the_registers_against_slow_ones(at: int, keys: list[bytes]) -> None:
    """Registers agree with those that are counted bit by bit, whether keys come in hex or in bytes."""
    of_text, of_bytes = Registers(at), Registers(at)
    for key in keys:
        of_text.add(key.hex())
        of_bytes.add_key(key)
    assert bytes.fromhex(of_text.hex()) == bytes(registers_slowly(at, keys))
    assert of_bytes.hex() == of_text.hex()
