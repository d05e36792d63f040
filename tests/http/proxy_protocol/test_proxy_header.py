"""The PROXY protocol: both versions, whole and in pieces, and everything that is no header."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyryrelay.http.proxy_protocol.crc32c import crc32c
from pyryrelay.http.proxy_protocol.proxy_header import (
    MAX_HEADER_BYTES,
    MAX_LINE_BYTES,
    ProxyHeader,
    ProxyHeaderError,
    ProxyHeaderParser,
    ProxyHeaderReason,
)

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")
LOCAL, PROXY = 0x20, 0x21
TCP4, UDP4, TCP6, UDP6, UNIX, UNIX_DGRAM = 0x11, 0x12, 0x21, 0x22, 0x31, 0x32
CRC32C, NOOP, SSL = 0x03, 0x04, 0x20
BLOCK4 = IPv4Address("192.0.2.1").packed + IPv4Address("198.51.100.2").packed + b"\xc3\x50\x01\xbb"
HEADER4 = ProxyHeader("192.0.2.1", 50_000, "198.51.100.2", 443)

Outcome = tuple[ProxyHeader, bytes] | str | None


def outcome(pieces: list[bytes]) -> Outcome:
    """Feed pieces as a connection would, and return the header and the rest, a reason, or None for "more"."""
    parser = ProxyHeaderParser()
    for number, piece in enumerate(pieces):
        try:
            header = parser.feed(piece)
        except ProxyHeaderError as error:
            return error.reason
        if header is not None:
            return header, parser.rest + b"".join(pieces[number + 1 :])
        assert parser.rest == b""
    return None


def parse(data: bytes) -> ProxyHeader:
    """Parse a complete header that nothing follows."""
    found = outcome([data])
    assert isinstance(found, tuple), found
    assert found[1] == b""
    return found[0]


def refused_at(data: bytes) -> tuple[int, str | None]:
    """Feed byte by byte, and return after how many the parser refused, and why."""
    parser = ProxyHeaderParser()
    for count in range(1, len(data) + 1):
        try:
            if parser.feed(data[count - 1 : count]) is not None:
                return count, None
        except ProxyHeaderError as error:
            return count, error.reason
    return len(data), None


def tlv(kind: int, value: bytes = b"") -> bytes:
    """Build one type, length and value."""
    return bytes([kind]) + len(value).to_bytes(2) + value


def v2(command: int, protocol: int, block: bytes) -> bytes:
    """Build a binary header around a block."""
    return SIGNATURE + bytes([command, protocol]) + len(block).to_bytes(2) + block


def with_checksum(protocol: int, addresses: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """Build a binary header whose TLVs hold its CRC32c."""
    header = v2(PROXY, protocol, addresses + before + tlv(CRC32C, bytes(4)) + after)
    at = len(header) - len(after) - 4
    return header[:at] + crc32c(header).to_bytes(4) + header[at + 4 :]


def unmapped(ip: IPv4Address | IPv6Address) -> str:
    """Return the text that the parser gives for an address."""
    return str(getattr(ip, "ipv4_mapped", None) or ip)


PORTS = st.integers(0, 65_535)
TLVS = st.lists(
    st.builds(tlv, st.integers(0, 255).filter(lambda kind: kind != CRC32C), st.binary(max_size=40)), max_size=4
)


@st.composite
def endpoints(draw: st.DrawFn) -> tuple[IPv4Address | IPv6Address, int, IPv4Address | IPv6Address, int]:
    """Draw two addresses of one family, with ports."""
    ips = st.ip_addresses(v=draw(st.sampled_from([4, 6])))
    return draw(ips), draw(PORTS), draw(ips), draw(PORTS)


@st.composite
def headers(draw: st.DrawFn) -> tuple[bytes, ProxyHeader]:
    """Draw a well-formed header of either version, and what it says."""
    source, source_port, destination, destination_port = draw(endpoints())
    said = ProxyHeader(unmapped(source), source_port, unmapped(destination), destination_port)
    kind = draw(st.sampled_from(["v1", "v2", "checksum", "local", "unspecified", "unix", "unknown"]))
    if kind == "v1":
        line = f"PROXY TCP{source.version} {source} {destination} {source_port} {destination_port}\r\n"
        return line.encode("ascii"), said
    if kind == "unknown":
        ignored = draw(st.binary(max_size=90)).replace(b"\r", b"").replace(b"\n", b"")
        return b"PROXY UNKNOWN" + (b" " + ignored if ignored else b"") + b"\r\n", ProxyHeader()
    if kind == "local":
        return v2(LOCAL, draw(st.integers(0, 255)), draw(st.binary(max_size=300))), ProxyHeader(local=True)
    if kind == "unspecified":
        unspecified = draw(st.sampled_from([0x00, 0x01, 0x02, 0x10, 0x20, 0x30]))
        return v2(PROXY, unspecified, draw(st.binary(max_size=60))), ProxyHeader()
    extra = b"".join(draw(TLVS))
    if kind == "unix":
        return v2(PROXY, draw(st.sampled_from([UNIX, UNIX_DGRAM])), bytes(216) + extra), ProxyHeader(unix=True)
    block = source.packed + destination.packed + source_port.to_bytes(2) + destination_port.to_bytes(2)
    protocol = (source.version == 6) * 0x10 + 0x10 + draw(st.sampled_from([1, 2]))
    if kind == "checksum":
        return with_checksum(protocol, block, extra, b"".join(draw(TLVS))), said
    return v2(PROXY, protocol, block + extra), said


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a header in which some bytes are others."""
    data = bytearray(draw(headers())[0])
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255) | st.sampled_from(b"\r\n :.01"))
    return bytes(data)


OPENINGS = st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN", SIGNATURE, SIGNATURE + b"\x21\x11\x00"])
ANYTHING = damaged() | st.builds(bytes.__add__, OPENINGS, st.binary(max_size=200))


@st.composite
def split(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Draw a way to cut bytes into pieces, empty ones included."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def one_by_one(data: bytes) -> Iterator[bytes]:
    """Cut bytes into single ones."""
    return (data[at : at + 1] for at in range(len(data)))


class TestAnyBytes:
    """What holds for all input."""

    @given(headers(), st.binary(max_size=30))
    def test_what_was_built_is_read(self, built: tuple[bytes, ProxyHeader], follows: bytes) -> None:
        """A header gives what was put into it, and what follows it is returned unchanged."""
        data, said = built
        assert outcome([data + follows]) == (said, follows)
        assert outcome([data[:-1]]) is None

    @given(ANYTHING, st.data())
    def test_pieces_make_no_difference(self, data: bytes, draws: st.DataObject) -> None:
        """Bytes in pieces give the same header and rest, the same reason, or neither."""
        whole = outcome([data])
        assert outcome(draws.draw(split(data))) == whole
        assert outcome(list(one_by_one(data))) == whole

    @given(st.binary(max_size=300))
    def test_only_its_own_error_escapes(self, data: bytes) -> None:
        """Arbitrary bytes are a header, too few, or a `ProxyHeaderError` with one of its words."""
        found = outcome([data])
        assert found is None or isinstance(found, tuple) or found in set(ProxyHeaderReason)

    @given(st.integers(0, 255).filter(lambda byte: byte not in (SIGNATURE[0], ord("P"))))
    def test_a_wrong_first_byte_fails_at_once(self, byte: int) -> None:
        """Another protocol is recognized by its first byte."""
        assert outcome([bytes([byte])]) == "not_proxy"

    @given(st.sampled_from([LOCAL, PROXY]), st.sampled_from([0, TCP4, TCP6, UNIX]), st.binary(min_size=2, max_size=2))
    def test_no_more_than_the_bound_is_held(self, command: int, protocol: int, length: bytes) -> None:
        """Whatever length is announced, at most `MAX_HEADER_BYTES` are held."""
        noops = tlv(NOOP) * MAX_HEADER_BYTES
        assert outcome([(SIGNATURE + bytes([command, protocol]) + length + bytes(216) + noops)[:MAX_HEADER_BYTES]])

    def test_nothing_is_no_header_yet(self) -> None:
        """An empty piece changes nothing."""
        assert outcome([b"", b""]) is None

    def test_an_error_stays(self) -> None:
        """After an error every further piece raises the same one, and the error holds no content."""
        parser = ProxyHeaderParser()
        for piece in (b"PROXY TCP4 secret", b"PROXY UNKNOWN\r\n"):
            with pytest.raises(ProxyHeaderError, match=r"\Abad_line\Z") as caught:
                parser.feed(piece)
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None

    def test_a_parser_reads_one_header(self) -> None:
        """Feeding a parser that has returned its header is an error of the caller."""
        parser = ProxyHeaderParser()
        assert parser.feed(b"PROXY UNKNOWN\r\nrest") == ProxyHeader()
        with pytest.raises(ProxyHeaderError, match="finished"):
            parser.feed(b"more")
        assert parser.rest == b"rest"


class TestVersion1:
    """One line of text (section 2.1)."""

    @pytest.mark.parametrize(
        ("line", "header"),
        [
            ("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443", ("192.168.0.1", 56_324, "192.168.0.11", 443)),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535",
                ("255.255.255.255", 65_535, "255.255.255.255", 65_535),
            ),
            ("PROXY TCP6 2001:DB8:0::1 ::1 0 65535", ("2001:db8::1", 0, "::1", 65_535)),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 1 2", ("192.0.2.1", 1, "192.0.2.2", 2)),
        ],
    )
    def test_addresses_and_ports(self, line: str, header: tuple[str, int, str, int]) -> None:
        """A TCP line names source and destination, and addresses are canonical."""
        assert parse(line.encode() + b"\r\n") == ProxyHeader(*header)

    @pytest.mark.parametrize(
        "line",
        [
            "PROXY UNKNOWN",
            "PROXY UNKNOWN ",
            "PROXY UNKNOWN ffff::1 what-ever\x00\xff 65535 0",
            "PROXY UNKNOWN " + "f" * (MAX_LINE_BYTES - 16),
        ],
    )
    def test_unknown_has_no_source(self, line: str) -> None:
        """After UNKNOWN everything up to the line's end is ignored."""
        assert parse(line.encode("latin-1") + b"\r\n") == ProxyHeader()

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1", "bad_line"),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3", "bad_line"),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 ", "bad_line"),
            ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2", "bad_line"),
            ("PROXY TCP4 1.2.3.4\t1.2.3.4 1 2", "bad_line"),
            ("PROXY TCP6 fe80::1%eth0 ::1 1 2", "bad_line"),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2", "bad_line"),
            ("PROXY TCP4 1.2.3.4 1.2.3 1 2", "bad_address"),
            ("PROXY TCP4 1.2.3.256 1.2.3.4 1 2", "bad_address"),
            ("PROXY TCP4 1.2.3.04 1.2.3.4 1 2", "bad_address"),
            ("PROXY TCP4 ::1 ::1 1 2", "bad_address"),
            ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2", "bad_address"),
            ("PROXY TCP6 ::1 1::2::3 1 2", "bad_address"),
            ("PROXY TCP6 ::1 ::12345 1 2", "bad_address"),
            ("PROXY TCP4  1.2.3.4 1 2", "bad_address"),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2", "bad_port"),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 99999", "bad_port"),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2", "bad_port"),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 00", "bad_port"),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 ", "bad_port"),
            ("PROXY TCP4 1.2.3.4 1.2.3.4 1 a", "bad_port"),
        ],
    )
    def test_the_grammar_is_exact(self, line: str, reason: str) -> None:
        """Fields, addresses and ports must be exactly as the specification says."""
        assert outcome([line.encode() + b"\r\n"]) == reason

    @pytest.mark.parametrize(
        ("data", "count", "reason"),
        [
            (b"GET / HTTP/1.1\r\n", 1, "not_proxy"),
            (b"PROXIED", 5, "not_proxy"),
            (b"PROXY\tTCP4", 6, "not_proxy"),
            (b"proxy TCP4", 1, "not_proxy"),
            (b"PROXY UDP4 ", 8, "bad_protocol"),
            (b"PROXY TCP5 ", 10, "bad_protocol"),
            (b"PROXY TCP4\r\n", 11, "bad_protocol"),
            (b"PROXY UNKNOWNS\r\n", 14, "bad_protocol"),
            (b"PROXY UNKNOWN\n", 14, "bad_protocol"),
            (b"PROXY UNKNOWN\r\r\n", 15, "bad_line"),
            (b"PROXY UNKNOWN x\n", 16, "bad_line"),
            (b"PROXY UNKNOWN x\rx", 17, "bad_line"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", 31, "bad_line"),
            (b"PROXY TCP4 GET / HTTP/1.1", 12, "bad_line"),
            (b"PROXY TCP4 " + b"1" * 200, MAX_LINE_BYTES - 1, "too_long"),
            (b"PROXY UNKNOWN " + b"x" * 200, MAX_LINE_BYTES - 1, "too_long"),
            (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", MAX_LINE_BYTES - 1, "too_long"),
            (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", MAX_LINE_BYTES, None),
            (b"PROXY UNKNOWN\r\n", 15, None),
        ],
    )
    def test_what_is_wrong_is_known_at_once(self, data: bytes, count: int, reason: str | None) -> None:
        """A line is refused at the first byte that no line can have."""
        assert refused_at(data) == (count, reason)


class TestVersion2:
    """A binary header (section 2.2)."""

    @pytest.mark.parametrize("protocol", [TCP4, UDP4])
    def test_ipv4(self, protocol: int) -> None:
        """Addresses and ports are in network byte order, for streams and for datagrams."""
        assert parse(v2(PROXY, protocol, BLOCK4)) == HEADER4

    @pytest.mark.parametrize("protocol", [TCP6, UDP6])
    def test_ipv6(self, protocol: int) -> None:
        """IPv6 addresses are canonical, and IPv4-mapped ones are IPv4."""
        packed = IPv6Address("2001:db8::1").packed + IPv6Address("::ffff:192.0.2.1").packed
        header = parse(v2(PROXY, protocol, packed + b"\0\1\xff\xff"))
        assert header == ProxyHeader("2001:db8::1", 1, "192.0.2.1", 65_535)

    def test_local_means_the_proxy_itself(self) -> None:
        """LOCAL ignores the block, its family and a wrong checksum included."""
        for protocol, block in ((0, b""), (TCP4, BLOCK4), (0xFF, b"x"), (TCP4, BLOCK4 + tlv(CRC32C, b"lies"))):
            assert parse(v2(LOCAL, protocol, block)) == ProxyHeader(local=True)

    @pytest.mark.parametrize("protocol", [0x00, 0x01, 0x02, 0x10, 0x20, 0x30])
    def test_unspecified_has_no_source(self, protocol: int) -> None:
        """With an unspecified family or transport the block is skipped and there is no source."""
        assert parse(v2(PROXY, protocol, b"")) == ProxyHeader()
        assert parse(v2(PROXY, protocol, b"\xff" * 20)) == ProxyHeader()

    @pytest.mark.parametrize("protocol", [UNIX, UNIX_DGRAM])
    def test_unix_has_no_address(self, protocol: int) -> None:
        """The client of a proxy's UNIX socket has no address that can be counted."""
        assert parse(v2(PROXY, protocol, b"/run/x".ljust(216, b"\0"))) == ProxyHeader(unix=True)

    def test_tlvs_are_skipped(self) -> None:
        """TLVs of all types are skipped, empty ones and padding too."""
        extra = (
            tlv(NOOP) + tlv(NOOP, b"\0" * 9) + tlv(SSL, b"\7\0\0\0\0" + tlv(0x21, b"TLSv1.3")) + tlv(0xEA, b"\1vpce")
        )
        assert parse(v2(PROXY, TCP4, BLOCK4 + extra)) == HEADER4

    def test_the_longest_header(self) -> None:
        """A header of exactly the bound is read, and one byte more is refused by its length."""
        room = MAX_HEADER_BYTES - 16 - len(BLOCK4) - 3
        assert parse(v2(PROXY, TCP4, BLOCK4 + tlv(NOOP, bytes(room)))) == HEADER4
        assert refused_at(v2(PROXY, TCP4, BLOCK4 + tlv(NOOP, bytes(room + 1)))) == (16, "too_long")

    @pytest.mark.parametrize(
        ("data", "count", "reason"),
        [
            (b"\r\n\r\nGET", 5, "not_proxy"),
            (SIGNATURE + b"\x11", 13, "bad_version"),
            (SIGNATURE + b"\x31", 13, "bad_version"),
            (SIGNATURE + b"\x22", 13, "bad_command"),
            (SIGNATURE + b"\x21\x13", 14, "bad_family"),
            (SIGNATURE + b"\x21\x41", 14, "bad_family"),
            (SIGNATURE + b"\x21\x03", 14, "bad_family"),
            (SIGNATURE + b"\x21\x11\x10", 15, "too_long"),
            (SIGNATURE + b"\x20\xff\xff", 15, "too_long"),
            (SIGNATURE + b"\x21\x11\x0f\xf1", 16, "too_long"),
            (SIGNATURE + b"\x21\x11\x00\x0b", 16, "too_short"),
            (SIGNATURE + b"\x21\x21\x00\x23", 16, "too_short"),
            (SIGNATURE + b"\x21\x31\x00\xd7", 16, "too_short"),
            (SIGNATURE + b"\x21\x11\x00\x0d", 16, "bad_tlv"),
            (SIGNATURE + b"\x21\x11\x00\x0e", 16, "bad_tlv"),
            (v2(PROXY, TCP4, BLOCK4 + b"\4\0\1"), 31, "bad_tlv"),
            (v2(PROXY, TCP4, BLOCK4 + tlv(NOOP, b"x") + b"\4\0"), 31, "bad_tlv"),
            (v2(PROXY, TCP4, BLOCK4 + tlv(CRC32C, b"abc")), 31, "bad_tlv"),
            (v2(PROXY, TCP4, BLOCK4 + tlv(CRC32C, b"abcd") * 2), 38, "bad_tlv"),
            (v2(PROXY, TCP4, BLOCK4 + tlv(CRC32C, b"abcd")), 35, "bad_checksum"),
            (v2(PROXY, TCP4, BLOCK4 + tlv(NOOP) * 3), 37, None),
        ],
    )
    def test_what_is_wrong_is_known_at_once(self, data: bytes, count: int, reason: str | None) -> None:
        """A header is refused at the first byte that no header can have, and so are inconsistent lengths."""
        assert refused_at(data) == (count, reason)


class TestChecksum:
    """PP2_TYPE_CRC32C (section 2.2.3)."""

    @given(TLVS, TLVS, st.data())
    def test_a_changed_header_is_refused(self, before: list[bytes], after: list[bytes], draws: st.DataObject) -> None:
        """With a checksum every changed bit of addresses, ports and checksum is found."""
        data = bytearray(with_checksum(TCP4, BLOCK4, b"".join(before), b"".join(after)))
        assert parse(bytes(data)) == HEADER4
        checksum_at = 16 + len(BLOCK4) + len(b"".join(before)) + 3
        at = draws.draw(st.sampled_from([*range(16, 28), *range(checksum_at, checksum_at + 4)]))
        data[at] ^= 1 << draws.draw(st.integers(0, 7))
        assert outcome([bytes(data)]) == "bad_checksum"
