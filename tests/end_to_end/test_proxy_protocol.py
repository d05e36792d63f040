"""The PROXY protocol on our own listeners: from real proxies, in pieces, and from peers that may not send it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest
from tests.end_to_end.admin import jailed
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, GENEROUS, LOCALHOST, SLOW, Launch, Relay, asynchronous, run_twistd
from tests.end_to_end.peers import Pair, binary, fresh_id, pair, phone
from tests.end_to_end.proxies import Proxy, haproxy, needs_haproxy, needs_nginx, nginx_stream
from tests.end_to_end.raw import ask, head, raw, silence, statuses, upgrade

TRUSTING = ("--proxy-protocol", "--trusted-proxy", LOCALHOST)
ATTEMPT = upgrade("/v1/client", "unclaimed")
HEALTH = head("/healthz", ("Host", "relay"))

V2 = b"\r\n\r\n\x00\r\nQUIT\n"
"""The signature of version 2 (section 2.2)."""


def v1(source: str) -> bytes:
    """Return a header of version 1 for a client."""
    family, target = ("TCP6", "2001:db8::1") if ":" in source else ("TCP4", "192.0.2.200")
    return f"PROXY {family} {source} {target} 4711 443\r\n".encode()


def v2(source: str, extensions: bytes = b"") -> bytes:
    """Return a header of version 2 for a client, with TLVs."""
    family, target = (socket.AF_INET6, "2001:db8::1") if ":" in source else (socket.AF_INET, "192.0.2.200")
    addresses = b"".join(socket.inet_pton(family, text) for text in (source, target)) + struct.pack("!HH", 4711, 443)
    kind = 0x21 if family == socket.AF_INET6 else 0x11
    return V2 + struct.pack("!BBH", 0x21, kind, len(addresses + extensions)) + addresses + extensions


LOCAL = V2 + b"\x20\x00\x00\x00"
"""What a proxy sends for its own health checks."""
UNKNOWN = b"PROXY UNKNOWN\r\n"
NOOP_AND_STRANGER = b"\x04\x00\x03abc" + b"\xe0\x00\x01x"
"""TLVs: one to ignore, and a custom one."""

HEADERS: Mapping[str, Callable[[str], bytes]] = {
    "v1": v1,
    "v2": v2,
    "v2-extensions": lambda source: v2(source, NOOP_AND_STRANGER),
}


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with generous quotas that expects PROXY headers from 127.0.0.1; each test has clients of its own."""
    options = [*TRUSTING, *GENEROUS, "--http-quota", "off", "--jail-after", "off"]
    relay = Relay(tmp_path_factory.mktemp("trusting"), options)
    yield relay
    relay.stop()


@pytest.mark.parametrize("source", ["192.0.2.1", "2001:db8:1:2::3"])
@pytest.mark.parametrize("version", HEADERS)
@asynchronous
async def test_the_client_is_the_source(version: str, source: str, start_relay: StartRelay) -> None:
    """The address in the header is the one for quotas and for the log."""
    relay = start_relay(*TRUSTING, "--upgrade-quota", "1/hour burst 2")
    attempt = HEADERS[version](source) + ATTEMPT
    assert await statuses(relay.address, attempt, 3) == [101, 101, 429]
    assert f"refused {source} 429 rate_limit on client" in relay.log()
    assert await statuses(relay.address, v1("192.0.2.2") + ATTEMPT, 1) == [101]


@pytest.mark.parametrize("version", HEADERS)
@asynchronous
async def test_split_at_every_byte(version: str, trusting: Relay) -> None:
    """A header may be split anywhere."""
    header = HEADERS[version]("192.0.2.1")
    data = header + HEALTH
    for cut in range(1, len(header) + 2):
        async with raw(trusting.address) as peer:
            await peer.send(data[:cut])
            await asyncio.sleep(0.001)
            await peer.send(data[cut:])
            assert (await peer.response()).status == 200


@pytest.mark.parametrize("version", HEADERS)
@asynchronous
async def test_byte_by_byte(version: str, trusting: Relay) -> None:
    """A header and the request behind it may arrive in single bytes."""
    async with raw(trusting.address) as peer:
        for byte in HEADERS[version]("192.0.2.1") + ATTEMPT:
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await peer.response()).status == 101


@pytest.mark.parametrize("header", [LOCAL, UNKNOWN])
@asynchronous
async def test_a_proxy_that_speaks_for_itself(header: bytes, start_relay: StartRelay) -> None:
    """Health checks of a proxy count for its own address."""
    relay = start_relay(*TRUSTING, "--upgrade-quota", "1/hour burst 2")
    assert await statuses(relay.address, header + HEALTH, 3) == [200] * 3
    assert await statuses(relay.address, header + ATTEMPT, 3) == [101, 101, 429]
    assert "refused 127.0.0.1 429 rate_limit" in relay.log()


@asynchronous
async def test_untrusted_peers_are_dropped(trusting: Relay) -> None:
    """A peer that is no trusted proxy gets no answer, with a header or without."""
    before = trusting.metrics()
    for request in (v1("192.0.2.1") + HEALTH, v2("192.0.2.1") + ATTEMPT, HEALTH, ATTEMPT):
        assert await silence(trusting.address, request, source="127.0.0.2")
    refused = 'pyryrelay_refusals_total{reason="untrusted_proxy"}'
    assert trusting.metrics()[refused] == before[refused] + 4
    assert "refused 127.0.0.2 0 untrusted_proxy" in trusting.log()


@pytest.mark.parametrize(
    "data",
    [
        HEALTH,
        ATTEMPT,
        b"PROXY TCP4 192.0.2.1\r\n" + HEALTH,
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n" + HEALTH,
        b"PROXY TCP4 192.0.2.1 192.0.2.2 99999 1\r\n" + HEALTH,
        b"PROXY " + b"x" * 200,
        V2 + b"\x31\x11\x00\x0c" + bytes(12) + HEALTH,
        V2 + b"\x21\x11\x00\x04" + bytes(4) + HEALTH,
        v2("192.0.2.1", b"\x03\x00\x04" + bytes(4)) + HEALTH,
    ],
    ids=["none", "none-upgrade", "short", "family", "port", "endless", "version", "too-small", "checksum"],
)
@asynchronous
async def test_bad_headers_are_dropped(data: bytes, trusting: Relay) -> None:
    """A proxy that sends no header, or an invalid one, is cut off without an answer."""
    refused = 'pyryrelay_refusals_total{reason="bad_proxy_header"}'
    before = trusting.metrics()[refused]
    assert await silence(trusting.address, data)
    assert trusting.metrics()[refused] == before + 1


@asynchronous
async def test_a_slow_header(trusting: Relay) -> None:
    """A connection whose header does not arrive in time is closed."""
    async with raw(trusting.address) as peer:
        await peer.send(b"PROXY TCP4 ")
        with contextlib.suppress(ConnectionError):
            assert await peer.rest() == b""


@asynchronous
async def test_the_client_is_jailed_and_not_the_proxy(start_relay: StartRelay) -> None:
    """Strikes count for the client, and the proxy can still connect for others."""
    relay = start_relay(*TRUSTING, "--jail-after", "5/day", "--http-quota", "off")
    nothing = head("/nothing", ("Host", "relay"))
    assert await statuses(relay.address, v1("192.0.2.1") + nothing, 5) == [404] * 5
    assert await silence(relay.address, v2("192.0.2.1") + nothing)
    assert await statuses(relay.address, v2("192.0.2.2") + nothing, 1) == [404]
    assert jailed(relay) == ["192.0.2.1/32"]


@asynchronous
async def test_denied_before_the_request(start_relay: StartRelay) -> None:
    """Lists apply to the source of the header."""
    relay = start_relay(*TRUSTING, "--deny", "192.0.2.0/24")
    assert (await ask(relay.address, v1("192.0.2.1") + ATTEMPT)).status == 403
    assert await statuses(relay.address, v1("198.51.100.1") + ATTEMPT, 1) == [101]


@asynchronous
async def test_together_with_a_forwarding_header(start_relay: StartRelay) -> None:
    """Behind two proxies, the forwarding header of the inner one counts if its sender is trusted."""
    options = (*TRUSTING, "--trust-x-forwarded-for", "--trusted-proxy", "10.0.0.1", "--upgrade-quota", "1/hour burst 1")
    relay = start_relay(*options)
    attempt = upgrade("/v1/client", "unclaimed", ("X-Forwarded-For", "192.0.2.1"))
    assert await statuses(relay.address, v1("10.0.0.1") + attempt, 2) == [101, 429]
    assert await statuses(relay.address, v1("192.0.2.2") + attempt, 2) == [101, 429]
    assert "refused 192.0.2.1 429 rate_limit" in relay.log()
    assert "refused 192.0.2.2 429 rate_limit" in relay.log()


@asynchronous
async def test_over_ipv6_and_unix(tmp_path: Path, start_relay: StartRelay) -> None:
    """Proxies on ::1 and on a UNIX-domain socket can be trusted."""
    path = tmp_path / "relay.sock"
    launch = Launch(listen=["tcp:{port}:interface=\\:\\:1", f"unix:{path}"])
    options = ("--proxy-protocol", "--trusted-proxy", "::1", "--trusted-proxy", "unix")
    relay = start_relay(*options, "--upgrade-quota", "1/hour burst 2", launch=launch)
    assert await statuses(("::1", relay.port), v2("192.0.2.1") + ATTEMPT, 1) == [101]
    assert await statuses(path, v1("192.0.2.1") + ATTEMPT, 2) == [101, 429]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--proxy-protocol",), "--trusted-proxy"),
        ((*TRUSTING, "--listen", "haproxy:tcp:0"), "haproxy:"),
    ],
)
def test_mistakes_at_start(options: tuple[str, ...], words: str, tmp_path: Path) -> None:
    """Options that would drop every peer, or read the header twice, stop the start."""
    outcome = run_twistd(tmp_path, *options)
    assert outcome.returncode == 2
    (line,) = outcome.stderr.splitlines()
    assert "--proxy-protocol" in line
    assert words in line


# Real proxies


Started: TypeAlias = Callable[[Path, str], contextlib.AbstractContextManager[Proxy]]


def _haproxy(send: str) -> Started:
    return lambda directory, upstream: haproxy(directory, f"{upstream} {send}", "tcp")


REAL = [
    pytest.param(_haproxy("send-proxy"), id="haproxy-v1", marks=needs_haproxy),
    pytest.param(_haproxy("send-proxy-v2"), id="haproxy-v2", marks=needs_haproxy),
    pytest.param(
        _haproxy("send-proxy-v2 proxy-v2-options crc32c,unique-id"), id="haproxy-v2-crc32c", marks=needs_haproxy
    ),
    pytest.param(nginx_stream, id="nginx-stream", marks=needs_nginx),
]


@pytest.mark.parametrize("started", REAL)
@asynchronous
async def test_behind_a_real_proxy(started: Started, tmp_path: Path, start_relay: StartRelay) -> None:
    """Peers relay through the proxy, a flood is held to its burst, and addresses are those that the proxy saw."""
    relay = start_relay(*TRUSTING, *SLOW)
    with started(tmp_path / "proxy", f"{LOCALHOST}:{relay.port}") as proxy:
        server_id = fresh_id()
        floods = [asyncio.create_task(statuses(proxy.address, ATTEMPT, 20, source="127.0.0.2")) for _ in range(4)]
        async with binary(proxy.uri, server_id, source="127.0.0.3") as one:
            for _ in range(10):
                async with phone(proxy.uri, server_id, source="127.0.0.3") as other:
                    await Pair(server_id, one, other).exchange()
        found = [status for flood in await asyncio.gather(*floods) for status in flood]
        assert set(found) == {101, 429}
        assert found.count(101) == 20
        async with pair(proxy.uri, source="127.0.0.4") as peers:
            await peers.exchange()
            text = f'"{"x" * 200_000}"'
            await peers.phone.send(text)
            assert text in str(await asyncio.wait_for(peers.binary.recv(), DEADLINE_S))
    assert "from 127.0.0.4" in relay.log()
    assert "refused 127.0.0.2 429 rate_limit" in relay.log()
