"""Public keys as operators write them: 64 hex digits, or ``npub1...`` (NIP-19, bech32 of BIP-173).

PURE. Errors never repeat the text: it may be a secret key.
"""

from __future__ import annotations

import re
from typing import Final

_HEX: Final = re.compile(r"[0-9a-f]{64}")
_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_LENGTH: Final = 6
_MAX_LENGTH: Final = 90


def parse_key(text: str) -> str:
    """Return a public key as 64 lower-case hex digits. Raises ``ValueError`` that says how to mend it."""
    lowered = text.lower()
    if _HEX.fullmatch(lowered):
        return lowered
    if lowered.startswith("nsec1"):
        raise ValueError("this is a secret key: write the public key, npub1..., and keep this one to yourself")
    if not lowered.startswith("npub1"):
        raise ValueError("a public key is written as 64 hex digits or as npub1...")
    try:
        _, key = decode_bech32(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ValueError("this npub1... has a typing error: copy it again, whole")
    return key.hex()


def npub(key: str) -> str:
    """Return a public key of 64 hex digits as ``npub1...``."""
    data = _regroup(bytes.fromhex(key), 8, 5)
    values = [*_expanded("npub"), *data]
    rest = _polymod([*values, *([0] * _CHECKSUM_LENGTH)]) ^ 1
    checksum = [rest >> 5 * (_CHECKSUM_LENGTH - 1 - place) & 31 for place in range(_CHECKSUM_LENGTH)]
    return "npub1" + "".join(_ALPHABET[value] for value in [*data, *checksum])


def decode_bech32(text: str) -> tuple[str, bytes]:
    """Return the human-readable part, in lower case, and the bytes of a bech32 text. Raises ``ValueError``."""
    lowered = text.lower()
    prefix, separator, rest = lowered.rpartition("1")
    values = [_VALUES.get(character, -1) for character in rest]
    well_formed = (
        text.isascii()
        and bool(prefix and separator)
        and len(text) <= _MAX_LENGTH
        and text in (lowered, text.upper())
        and all("!" <= character <= "~" for character in prefix)
        and len(values) >= _CHECKSUM_LENGTH
        and -1 not in values
    )
    if not well_formed or _polymod([*_expanded(prefix), *values]) != 1:
        raise ValueError("not a bech32 text")
    data = values[:-_CHECKSUM_LENGTH]
    decoded = bytes(_regroup(bytes(data), 5, 8))
    # The bits that fill the last group are fewer than five, and zero: one spelling for each value.
    surplus = len(data) * 5 - len(decoded) * 8
    if surplus >= 5 or (data and data[-1] & ((1 << surplus) - 1)):
        raise ValueError("not a bech32 text")
    return prefix, decoded


def _expanded(prefix: str) -> list[int]:
    """Return the values that stand for the human-readable part in the checksum."""
    codes = prefix.encode("ascii")
    return [*(code >> 5 for code in codes), 0, *(code & 31 for code in codes)]


def _polymod(values: list[int]) -> int:
    """Return the checksum of BIP-173."""
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


def _regroup(values: bytes, from_bits: int, to_bits: int) -> list[int]:
    """Return the same bits in groups of another size; whole groups only when they become larger."""
    result: list[int] = []
    held = bits = 0
    for value in values:
        held = held << from_bits | value
        bits += from_bits
        while bits >= to_bits:
            bits -= to_bits
            result.append(held >> bits)
            held &= (1 << bits) - 1
    if bits and to_bits < from_bits:
        result.append(held << to_bits - bits)
    return result
