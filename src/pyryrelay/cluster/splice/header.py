"""The PROXY header that begins a spliced connection: version 2, with a ticket as TLV. PURE.

Source: HAProxy's ``proxy-protocol.txt``, section 2.2; the type of the TLV is one of those for custom use (section
2.2.8). The destination is left unspecified: an address of zeros, port 0.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final

__all__ = ["TICKET_TLV", "header", "ticket_of"]

TICKET_TLV: Final = 0xE7
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n\x21"
_TCP4: Final = b"\x11"
_TCP6: Final = b"\x21"


def header(client: IPv4Address | IPv6Address, ticket: bytes) -> bytes:
    """Return the header of a connection of ``client``."""
    packed = client.packed
    family = _TCP4 if client.version == 4 else _TCP6
    body = packed + bytes(len(packed)) + bytes(4) + bytes((TICKET_TLV,)) + len(ticket).to_bytes(2) + ticket
    return _SIGNATURE + family + len(body).to_bytes(2) + body


def ticket_of(tlvs: bytes) -> bytes | None:
    """Return the ticket among the TLVs of a header; None if there is none, or more than one."""
    found: list[bytes] = []
    while len(tlvs) >= 3:
        end = 3 + int.from_bytes(tlvs[1:3])
        if tlvs[0] == TICKET_TLV:
            found.append(tlvs[3:end])
        tlvs = tlvs[end:]
    return found[0] if len(found) == 1 else None
