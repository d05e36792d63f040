"""The checksum of the PROXY protocol."""

from __future__ import annotations

import pytest

from pyryrelay.http.proxy_protocol.crc32c import crc32c


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xE306_9283),
        (bytes(32), 0x8A91_36AA),
        (b"\xff" * 32, 0x62A8_AB43),
        (bytes(range(32)), 0x46DD_794E),
        (bytes(reversed(range(32))), 0x113F_DB5C),
    ],
)
def test_known_values(data: bytes, crc: int) -> None:
    """The checksum of well-known inputs (RFC 3720 appendix B.4) is the published one."""
    assert crc32c(data) == crc
