"""HyperLogLog registers of a COUNT (NIP-45, spec section 7). PURE.

Relays that count with the same offset can have their answers merged by a client: the greater value of each register.
The offset comes from what the filter asks for, so that nobody can choose keys that look alike under every filter.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from pyryrelay.nostr.filters import Filter

__all__ = ["Registers", "offset", "offset_of"]

REGISTERS: Final = 256
FIRST_OFFSET: Final = 8
OFFSET_DIGIT: Final = 32
"""The place, from 0, of the hex digit that the offset is read from."""

_HEX = re.compile("[0-9a-fA-F]{64}")
_ADDRESS = re.compile("[0-9]+:([0-9a-fA-F]{64}):")


def offset_of(filter_: Filter) -> int | None:
    """Return the offset for a filter: that of the first value of its first `#` key.

    None for a filter without such a value: its count has no HyperLogLog.
    """
    if not filter_.tags or not filter_.tags[0][1]:
        return None
    return offset(filter_.tags[0][1][0])


def offset(value: str) -> int:
    """Return the offset, 8 to 23, for a tag's value: an id or a public key, an address, or any other text."""
    if _HEX.fullmatch(value):
        digits = value
    elif address := _ADDRESS.match(value):
        digits = address[1]
    else:
        digits = hashlib.sha256(value.encode("utf-8")).hexdigest()
    return FIRST_OFFSET + int(digits[OFFSET_DIGIT], 16)


class Registers:
    """The registers of one count.

    Args:
        offset: which byte of a public key says its register; the bits after it give its value.
    """

    __slots__ = ("_offset", "_values")

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._values = bytearray(REGISTERS)

    def add(self, pubkey: str) -> None:
        """Count the author of an event, given in 64 hex digits."""
        self.add_key(bytes.fromhex(pubkey))

    def add_key(self, key: bytes) -> None:
        """Count the author of an event, given in 32 bytes."""
        rest = key[self._offset + 1 :]
        value = 8 * len(rest) - int.from_bytes(rest, "big").bit_length() + 1
        register = key[self._offset]
        self._values[register] = max(self._values[register], value)

    def hex(self) -> str:
        """Return the registers in 512 lower-case hex digits, as COUNT answers them."""
        return self._values.hex()
