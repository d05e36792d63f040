"""The PROXY header that begins a spliced connection."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pyryrelay.cluster.splice.header import TICKET_TLV, header, ticket_of


def tlv(kind: int, value: bytes) -> bytes:
    """Return one TLV."""
    return bytes((kind,)) + len(value).to_bytes(2) + value


@pytest.mark.parametrize(("client", "at"), [("192.0.2.1", 28), ("2001:db8::1", 52)])
def test_the_header_has_the_client_and_the_ticket(client: str, at: int) -> None:
    """It is a header of version 2 with one TLV."""
    raw = header(ip_address(client), b"ticket")
    assert raw[:12] == b"\r\n\r\n\0\r\nQUIT\n"
    assert len(raw) == 16 + int.from_bytes(raw[14:16])
    assert raw[16 : 16 + len(ip_address(client).packed)] == ip_address(client).packed
    assert ticket_of(raw[at:]) == b"ticket"


def test_only_one_ticket_is_taken() -> None:
    """Other TLVs do not matter; two tickets are none."""
    ticket = tlv(TICKET_TLV, b"t")
    assert ticket_of(tlv(3, b"abcd") + ticket + tlv(4, b"")) == b"t"
    assert ticket_of(ticket + ticket) is None
    assert ticket_of(tlv(3, b"abcd")) is None
    assert ticket_of(b"") is None
