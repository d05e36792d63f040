"""Keys of operators: hex digits and npub, with an error that says what to do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.nostr.keys import decode_bech32, npub, parse_key

# The example of NIP-19.
HEX = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e"
NPUB = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"
NSEC = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"


@pytest.mark.parametrize("text", [HEX, HEX.upper(), NPUB, NPUB.upper()])
def test_both_spellings_are_read(text: str) -> None:
    """A key is read from hex digits and from npub, in either case."""
    assert parse_key(text) == HEX


@given(st.binary(min_size=32, max_size=32))
def test_npub_is_read_again(key: bytes) -> None:
    """Every key that is written as npub is read again."""
    assert parse_key(npub(key.hex())) == key.hex()


def test_npub_is_written_as_others_do() -> None:
    """The example of NIP-19 is written exactly."""
    assert npub(HEX) == NPUB


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("", "64 hex digits"),
        (HEX[1:], "64 hex digits"),
        (HEX + "\n", "64 hex digits"),
        ("note1" + NPUB[5:], "64 hex digits"),
        (NPUB[:-1], "typing error"),
        (NPUB[:-1] + "q", "typing error"),
        (NPUB[:-1] + "b", "typing error"),
        ("N" + NPUB[1:], "typing error"),
        (NPUB.replace("k", "\u212a"), "typing error"),
        ("npub1", "typing error"),
        (NSEC, "secret key"),
        (NSEC.upper(), "secret key"),
    ],
)
def test_what_is_no_key_is_told_its_fix(text: str, fix: str) -> None:
    """A text that is no public key is told what to write, and never repeated."""
    with pytest.raises(ValueError, match=fix) as caught:
        parse_key(text)
    assert len(text) < 6 or text not in str(caught.value)


def test_an_npub_of_another_length_is_refused() -> None:
    """An npub with a correct checksum over other than 32 bytes is no key."""
    with pytest.raises(ValueError, match="typing error"):
        parse_key(npub("00" * 31))


@given(st.integers(0, len(NPUB) - 1), st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
def test_one_wrong_character_is_noticed(place: int, character: str) -> None:
    """The checksum notices a single wrong character, wherever it is."""
    wrong = NPUB[:place] + character + NPUB[place + 1 :]
    if wrong != NPUB:
        with pytest.raises(ValueError, match=r"64 hex digits|typing error"):
            parse_key(wrong)


# Of BIP-173.


@pytest.mark.parametrize("text", ["A12UEL5L", "a12uel5l", "?1ezyfcl"])
def test_texts_without_data_are_read(text: str) -> None:
    """The shortest valid texts of BIP-173 have no bytes."""
    assert decode_bech32(text) == (text[0].lower(), b"")


@pytest.mark.parametrize(
    "text",
    ["\x201nwldj5", "\x7f1axkwrx", "pzry9x0s0muk", "1pzry9x0s0muk", "x1b4n0q5v", "li1dgmt3", "A1G7SGD8", "1qzzfhee"],
)
def test_invalid_texts_are_refused(text: str) -> None:
    """The invalid texts of BIP-173 are refused."""
    with pytest.raises(ValueError, match=r"^not a bech32 text$"):
        decode_bech32(text)


def test_bits_that_fill_the_last_group_are_few_and_zero() -> None:
    """A text of whole bytes and more than filling bits is refused, though the checksum does not notice it."""
    # The known weakness of bech32: before a last "p", any number of "q" can be inserted.
    text = next(npub(f"{number:064x}") for number in range(10_000) if npub(f"{number:064x}").endswith("p"))
    assert len(decode_bech32(text)[1]) == 32
    with pytest.raises(ValueError, match=r"^not a bech32 text$"):
        decode_bech32(text[:-1] + "qqqqq" + "p")
