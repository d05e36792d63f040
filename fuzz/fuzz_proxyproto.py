"""PROXY protocol headers: only `ProxyHeaderError` is raised, and the result does not depend on how the input is split.

Input: one byte for the size of the pieces, then what a connection sends.
"""

from __future__ import annotations

from ipaddress import ip_address

from harness import ensure, instrumented, main

with instrumented():
    from pyryrelay.http.proxy_protocol.proxy_header import (
        MAX_HEADER_BYTES,
        ProxyHeader,
        ProxyHeaderError,
        ProxyHeaderParser,
        ProxyHeaderReason,
    )

Outcome = tuple[ProxyHeader, bytes] | str | None


def outcome(data: bytes, piece_bytes: int) -> Outcome:
    """Feed pieces of a size; return the header and what follows it, a reason, or None if more input is needed."""
    parser = ProxyHeaderParser()
    for start in range(0, len(data), piece_bytes):
        try:
            header = parser.feed(data[start : start + piece_bytes])
        except ProxyHeaderError as error:
            ensure(error.reason in ProxyHeaderReason, "reasons are among the defined ones")
            return error.reason
        if header is not None:
            return header, parser.rest + data[start + piece_bytes :]
    return None


def check(data: bytes) -> None:
    """Feed the input as a whole, in pieces, and byte by byte."""
    sent = data[1:]
    whole = outcome(sent, len(sent) or 1)
    ensure(outcome(sent, (data[0] if data else 0) or 1) == whole, "the size of the pieces does not matter")
    ensure(outcome(sent, 1) == whole, "single bytes give the same result")
    if whole is None:
        ensure(len(sent) < MAX_HEADER_BYTES, "the buffer is bounded")
    elif isinstance(whole, tuple):
        header, rest = whole
        ensure(sent.endswith(rest) and len(rest) < len(sent), "what follows the header is returned")
        _check_header(header)


def _check_header(header: ProxyHeader) -> None:
    if header.source is None:
        others = (header.source_port, header.destination, header.destination_port)
        ensure(others == (None, None, None), "either all addresses and ports are given, or none")
        return
    ensure(not header.local and not header.unix, "local and UNIX connections have no address")
    for address, port in ((header.source, header.source_port), (header.destination, header.destination_port)):
        ensure(address is not None and _is_canonical(address), "addresses are canonical")
        ensure(port is not None and 0 <= port <= 65_535, "ports are in range")


def _is_canonical(address: str) -> bool:
    """Tell whether this is the one text of an address, and that of the IPv4 address in a mapped one."""
    read = ip_address(address)
    return str(read) == address and getattr(read, "ipv4_mapped", None) is None


if __name__ == "__main__":
    main(check)
