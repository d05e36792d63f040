"""Where TLS records end (RFC 8446 section 5.1). PURE.

OpenSSL does not tell how many records it has read, and which of them carried no data. So it is given whole records
only, and they are counted here. Sizes are bytes.
"""

from __future__ import annotations

from typing import Final

_HEADER_BYTES: Final = 5
MAX_RECORD_BYTES: Final = _HEADER_BYTES + (1 << 14) + 2048
"""The longest record that is allowed (RFC 5246 section 6.2.3; RFC 8446 section 5.2 allows less)."""
MAX_RECORDS: Final = 128
"""Records that are taken at once: a key update costs 13 µs, however cheap everything before it was."""
_CONTENT_TYPES: Final = range(20, 25)


def whole_records(received: bytes | bytearray, enough_bytes: int) -> tuple[int, int]:
    """Return where the whole records at the beginning of ``received`` end, and how many there are.

    At least one is taken if it is there, and no more once ``enough_bytes`` are reached. Bytes that are no record are
    returned with those before them, because OpenSSL knows how to answer them.
    """
    size, at, records = len(received), 0, 0
    while at < enough_bytes and records < MAX_RECORDS and size - at >= _HEADER_BYTES:
        end = at + _HEADER_BYTES + (received[at + 3] << 8 | received[at + 4])
        if received[at] not in _CONTENT_TYPES or end - at > MAX_RECORD_BYTES:
            return size, records
        if end > size:
            break
        at = end
        records += 1
    return at, records
