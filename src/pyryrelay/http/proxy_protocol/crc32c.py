"""CRC32c, the checksum of the PROXY protocol. PURE."""

from __future__ import annotations

from typing import Final


def _remainder(byte: int) -> int:
    """Divide one byte by the polynomial of RFC 4960 appendix B, which is 0x1EDC6F41, bits reversed."""
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_REMAINDERS: Final = tuple(_remainder(byte) for byte in range(256))


def crc32c(data: bytes | bytearray) -> int:
    """Return the CRC32c of ``data``, 32 bits (RFC 4960 appendix B)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _REMAINDERS[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
