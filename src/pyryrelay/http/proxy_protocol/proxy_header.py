"""The parser of PROXY protocol headers, versions 1 and 2. Sans-I/O.

Source: HAProxy's ``proxy-protocol.txt``, revision of 2020/03/05, whose sections are cited. Only read headers of trusted
senders: the protocol has no proof of who wrote them.

Invariants:

- Any bytes raise `ProxyHeaderError` and nothing else, and its text holds none of them.
- The same bytes give the same result in whatever pieces they arrive.
- Bytes that can no longer become a header are refused at the first byte that shows it. Three things are read whole
  before they are checked: the fields of a version 1 line (as section 2.1 requires), type and length of a TLV, the
  checksum.
- At most `MAX_HEADER_BYTES` are kept, and each byte is read a bounded number of times.

Sizes are bytes; ports are integers from 0 to 65535.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from pyryrelay.http.proxy_protocol.crc32c import crc32c

MAX_LINE_BYTES: Final = 107
"""The longest line of version 1, with its CRLF (section 2.1)."""

MAX_HEADER_BYTES: Final = 4096
"""The longest header of version 2 that is read, of the 65551 bytes that its format allows.

Section 2 requires a header to fit into the smallest TCP segment, 536 bytes. Addresses of UNIX sockets and all
registered TLVs take about 1 KiB; the rest is room for a client certificate. More would cost memory and time.
"""


class ProxyHeaderReason(StrEnum):
    """Why a header was refused. The values are fit for a metric label."""

    NOT_PROXY = "not_proxy"  # neither the signature of version 2 nor "PROXY" and a space
    BAD_PROTOCOL = "bad_protocol"  # version 1: neither TCP4 nor TCP6 nor UNKNOWN
    BAD_LINE = "bad_line"  # version 1: foreign bytes, a wrong number of fields, no CRLF at its end
    BAD_ADDRESS = "bad_address"  # version 1: no address, or none of the announced family
    BAD_PORT = "bad_port"  # version 1: no decimal number from 0 to 65535, or leading zeros
    BAD_VERSION = "bad_version"  # the signature of version 2, and another version behind it
    BAD_COMMAND = "bad_command"  # version 2: neither LOCAL nor PROXY
    BAD_FAMILY = "bad_family"  # version 2: an unassigned address family or transport
    TOO_LONG = "too_long"  # more than MAX_LINE_BYTES (version 1) or MAX_HEADER_BYTES (version 2)
    TOO_SHORT = "too_short"  # version 2: no room for the addresses of its family
    BAD_TLV = "bad_tlv"  # version 2: TLVs that do not fill it, a checksum that is repeated or not 4 bytes
    BAD_CHECKSUM = "bad_checksum"  # version 2: the CRC32c is that of another header
    FINISHED = "finished"  # bytes were fed to a parser that had already returned its header


class ProxyHeaderError(Exception):
    """The bytes are no PROXY header that this parser reads. The text is the reason, and never content."""

    def __init__(self, reason: ProxyHeaderReason) -> None:
        super().__init__(reason.value)
        self.reason: Final = reason


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """The source and the destination of a connection to the proxy.

    Addresses are canonical text (RFC 5952); an IPv4-mapped IPv6 address is the IPv4 address in it. They and the ports
    are None if the header names none: for the proxy's own connections (``local``), for UNIX sockets (``unix``), and for
    unknown or unspecified protocols. The specification wants ``local`` and unknown connections to be handled as
    connections of the real peer.
    """

    source: str | None = None
    source_port: int | None = None
    destination: str | None = None
    destination_port: int | None = None
    local: bool = False
    unix: bool = False
    tlvs: bytes = field(default=b"", compare=False, repr=False)
    """What follows the addresses of a TCP or UDP connection in version 2; type, length and value of each are whole."""


class ProxyHeaderParser:
    """Collects the header that opens one connection."""

    __slots__ = ("_buffer", "_reason", "_tlvs", "rest")

    rest: bytes
    """What followed the header in the last piece; empty until then."""

    def __init__(self) -> None:
        self.rest = b""
        self._buffer = bytearray()
        self._reason: ProxyHeaderReason | None = None
        self._tlvs = _Tlvs()

    def feed(self, data: bytes) -> ProxyHeader | None:
        """Take the next piece. Return the header if it is complete, and None if more bytes are needed.

        Raises `ProxyHeaderError`, and after that the same error for every further piece.
        """
        if self._reason is not None:
            raise ProxyHeaderError(self._reason)
        buffer = self._buffer
        held = len(buffer)
        buffer += data[: MAX_HEADER_BYTES - held]
        try:
            found = _read_v2(buffer, self._tlvs) if buffer[:1] == _SIGNATURE[:1] else _read_v1(buffer)
        except ProxyHeaderError as error:
            self._finish(error.reason)
            raise
        if found is None:
            return None
        header, end = found
        self.rest = data[end - held :]
        self._finish(ProxyHeaderReason.FINISHED)
        return header

    def _finish(self, reason: ProxyHeaderReason) -> None:
        self._reason = reason
        self._buffer = bytearray()


# Version 1: one line of text.

_CR: Final = 0x0D
_LF: Final = 0x0A
_UNKNOWN: Final = b"PROXY UNKNOWN"
_V1_OPENINGS: Final = (b"PROXY TCP4 ", b"PROXY TCP6 ", _UNKNOWN + b" ", _UNKNOWN + b"\r")
_V1_COMMON: Final = len(b"PROXY ")
_FAMILY_AT: Final = len(b"PROXY TCP")
_IN_FIELDS: Final = b"0123456789ABCDEFabcdef:. "
_IN_ANYTHING: Final = bytes(set(range(256)) - {_CR, _LF})
_PORT: Final = re.compile(rb"0|[1-9][0-9]{0,4}")
_MAX_PORT: Final = 65_535


def _read_v1(buffer: bytearray) -> tuple[ProxyHeader, int] | None:
    """Read a line (section 2.1); return the header and its end, or None if it is not complete."""
    opening = next((line for line in _V1_OPENINGS if line.startswith(buffer[: len(line)])), None)
    if opening is None:
        common = _V1_OPENINGS[0].startswith(buffer[:_V1_COMMON])
        raise ProxyHeaderError(ProxyHeaderReason.BAD_PROTOCOL if common else ProxyHeaderReason.NOT_PROXY)
    if len(buffer) < len(opening):
        return None
    unknown = opening.startswith(_UNKNOWN)
    # "the receiver must ignore anything presented before the CRLF is found"; a lone CR or LF is no line end.
    start, allowed = (len(_UNKNOWN), _IN_ANYTHING) if unknown else (len(opening), _IN_FIELDS)
    end = len(buffer) - len(buffer[start:].lstrip(allowed))
    if end > MAX_LINE_BYTES - 2:
        raise ProxyHeaderError(ProxyHeaderReason.TOO_LONG)
    if end == len(buffer):
        return None
    if buffer[end] != _CR:
        raise ProxyHeaderError(ProxyHeaderReason.BAD_LINE)
    if end + 1 == len(buffer):
        return None
    if buffer[end + 1] != _LF:
        raise ProxyHeaderError(ProxyHeaderReason.BAD_LINE)
    return (ProxyHeader() if unknown else _decode_v1(bytes(buffer[start:end]), buffer[_FAMILY_AT])), end + 2


def _decode_v1(line: bytes, family: int) -> ProxyHeader:
    """Read both addresses and both ports of a TCP line; ``family`` is the digit in its protocol."""
    fields = line.split(b" ")
    if len(fields) != 4:
        raise ProxyHeaderError(ProxyHeaderReason.BAD_LINE)
    source, destination = (_address(field.decode("ascii"), family) for field in fields[:2])
    if source is None or destination is None:
        raise ProxyHeaderError(ProxyHeaderReason.BAD_ADDRESS)
    if not all(_PORT.fullmatch(field) and int(field) <= _MAX_PORT for field in fields[2:]):
        raise ProxyHeaderError(ProxyHeaderReason.BAD_PORT)
    return ProxyHeader(source, int(fields[2]), destination, int(fields[3]))


def _address(text: str, family: int) -> str | None:
    """Return the canonical text of an address of the family, None if it is none."""
    try:
        return _text(IPv4Address(text) if family == ord("4") else IPv6Address(text))
    except AddressValueError:
        return None


def _text(address: IPv4Address | IPv6Address) -> str:
    return str(address if isinstance(address, IPv4Address) else address.ipv4_mapped or address)


# Version 2: binary.

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_VERSION: Final = 2
_LOCAL: Final = 0
_PROXY: Final = 1
_START_BYTES: Final = 16
_UNIX_BYTES: Final = 216

# Addresses and ports of one protocol, by the byte of family and transport. A datagram transport is taken like a
# stream: the client of a proxy that speaks HTTP/3 has an address too. What is unspecified in part is unknown, and
# so is where its TLVs would begin: such a block is skipped whole.
_ADDRESS_BYTES: Final = {0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: _UNIX_BYTES, 0x32: _UNIX_BYTES}
_ASSIGNED: Final = frozenset({*_ADDRESS_BYTES, 0x00, 0x01, 0x02, 0x10, 0x20, 0x30})

_TLV_START_BYTES: Final = 3
_TLV_CRC32C: Final = 0x03
_CHECKSUM_BYTES: Final = 4


class _Tlvs:
    """How far the TLVs of one header are checked, so that a header in many pieces is walked once."""

    __slots__ = ("checksum_at", "next_at")

    def __init__(self) -> None:
        self.next_at = 0
        self.checksum_at = 0

    def walk(self, buffer: bytearray, start: int, end: int) -> None:
        """Check those whose type and length have arrived, between ``start`` and ``end``; note where a checksum is."""
        at = self.next_at or start
        while at < end:
            value_at = at + _TLV_START_BYTES
            if value_at > end:
                raise ProxyHeaderError(ProxyHeaderReason.BAD_TLV)
            if value_at > len(buffer):
                break
            is_checksum = buffer[at] == _TLV_CRC32C
            at = value_at + int.from_bytes(buffer[at + 1 : value_at])
            if at > end or (is_checksum and (self.checksum_at or at - value_at != _CHECKSUM_BYTES)):
                raise ProxyHeaderError(ProxyHeaderReason.BAD_TLV)
            if is_checksum:
                self.checksum_at = value_at
        self.next_at = at


def _read_v2(buffer: bytearray, tlvs: _Tlvs) -> tuple[ProxyHeader, int] | None:
    """Read a binary header (section 2.2); return it and its end, or None if it is not complete."""
    _check_start(buffer)
    if len(buffer) < _START_BYTES:
        return None
    command, protocol = buffer[12] & 0x0F, buffer[13]
    end = _START_BYTES + int.from_bytes(buffer[14:_START_BYTES])
    # LOCAL: "discard the protocol block including the family which is ignored"
    address_bytes = _ADDRESS_BYTES.get(protocol) if command == _PROXY else None
    if address_bytes is not None:
        tlvs_at = _START_BYTES + address_bytes
        if end < tlvs_at:
            raise ProxyHeaderError(ProxyHeaderReason.TOO_SHORT)
        tlvs.walk(buffer, tlvs_at, end)
    if len(buffer) < end:
        return None
    if address_bytes is None:
        return ProxyHeader(local=command == _LOCAL), end
    _verify_checksum(buffer[:end], tlvs.checksum_at)
    return _decode_v2(buffer, address_bytes, end), end


def _check_start(buffer: bytearray) -> None:
    """Check as much as there is of the first 16 bytes."""
    if not _SIGNATURE.startswith(buffer[:12]):
        raise ProxyHeaderError(ProxyHeaderReason.NOT_PROXY)
    if len(buffer) > 12:
        if buffer[12] >> 4 != _VERSION:
            raise ProxyHeaderError(ProxyHeaderReason.BAD_VERSION)
        if buffer[12] & 0x0F not in (_LOCAL, _PROXY):
            raise ProxyHeaderError(ProxyHeaderReason.BAD_COMMAND)
    if len(buffer) > 13 and buffer[12] & 0x0F == _PROXY and buffer[13] not in _ASSIGNED:
        raise ProxyHeaderError(ProxyHeaderReason.BAD_FAMILY)
    # Of a length whose second byte is still to come, the first one may be too much already.
    if int.from_bytes(buffer[14:_START_BYTES].ljust(2, b"\0")) > MAX_HEADER_BYTES - _START_BYTES:
        raise ProxyHeaderError(ProxyHeaderReason.TOO_LONG)


def _decode_v2(buffer: bytearray, address_bytes: int, end: int) -> ProxyHeader:
    """Read the addresses: both of them, then both ports, in network byte order."""
    if address_bytes == _UNIX_BYTES:
        return ProxyHeader(unix=True)
    block = bytes(buffer[_START_BYTES : _START_BYTES + address_bytes])
    width = (address_bytes - 4) // 2
    kind = IPv4Address if width == 4 else IPv6Address
    source, destination = (_text(kind(packed)) for packed in (block[:width], block[width : 2 * width]))
    tlvs = bytes(buffer[_START_BYTES + address_bytes : end])
    return ProxyHeader(source, int.from_bytes(block[-4:-2]), destination, int.from_bytes(block[-2:]), tlvs=tlvs)


def _verify_checksum(header: bytearray, at: int) -> None:
    """Compare the CRC32c at offset ``at``, if there is one, with that of the header around it (section 2.2.3)."""
    if not at:
        return
    stated = int.from_bytes(header[at : at + _CHECKSUM_BYTES])
    # "replace the 32 bits of the checksum field in the received PROXY header with all '0's"
    header[at : at + _CHECKSUM_BYTES] = bytes(_CHECKSUM_BYTES)
    if crc32c(header) != stated:
        raise ProxyHeaderError(ProxyHeaderReason.BAD_CHECKSUM)
