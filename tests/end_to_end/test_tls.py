"""TLS endpoints under a real reactor: the quota of handshakes, how connections end, and no descriptors left."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import struct
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, Launch, Relay, asynchronous, eventually
from tests.end_to_end.peers import binary, fresh_id, pair, received
from tests.end_to_end.raw import TEXT, close_frame, frame, head, upgrade
from tests.support.tls_peers import client_context, endpoint_arguments

HEALTH = head("/healthz", ("Host", "relay"))
DESCRIPTORS = 64


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    """Return an ``ssl:`` endpoint for `Launch`."""
    return f"ssl:{{port}}:{endpoint_arguments(tmp_path)}:interface={LOCALHOST}"


class Client:
    """A client that controls its bytes on the wire, and can send them all at once."""

    def __init__(self, relay: Relay, context: ssl.SSLContext | None = None, session: Any = None) -> None:
        self.sock = socket.create_connection(relay.address, DEADLINE_S)
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = client_context() if context is None else context
        self.tls = context.wrap_bio(self._incoming, self.outgoing, session=session)
        try:
            self._shake_hands()
        except BaseException:
            self.sock.close()
            raise

    def _shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send()
                self._receive()
            else:
                self.send()
                return

    def send(self, *more: bytes) -> None:
        """Send what was written, and more pieces, each encrypted as a record."""
        for data in more:
            self.tls.write(data)
        self.sock.sendall(self.outgoing.read())

    def _receive(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self._incoming.write(data)

    def read(self) -> bytes:
        """Return some plaintext; empty after the relay's close_notify."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                self._receive()

    def rest(self) -> bytes:
        """Return everything up to the close_notify."""
        return b"".join(iter(self.read, b""))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def is_refused(relay: Relay) -> bool:
    """Tell whether a handshake fails."""
    try:
        with Client(relay):
            return False
    except (OSError, EOFError):
        return True


@asynchronous
async def test_handshakes_have_a_quota(start_relay: StartRelay, endpoint: str) -> None:
    """A client that opens too many connections is reset before TLS, and counted; others go on."""
    relay = start_relay("--tls-quota", "1/day burst 3", launch=Launch([endpoint]))
    async with pair(f"wss://{LOCALHOST}:{relay.port}", ssl=client_context(), source="127.0.0.9") as peers:
        assert [is_refused(relay) for _ in range(5)] == [False, False, False, True, True]
        assert relay.metrics()['pyryrelay_refusals_total{reason="tls_rate_limit"}'] == 2
        await peers.exchange()
    await eventually(lambda: not any(relay.connections().values()), "no lease is left")


@asynchronous
async def test_an_offer_without_http(start_relay: StartRelay, endpoint: str) -> None:
    """A client that offers only HTTP/2 gets an alert, and can read it before the end."""
    relay = start_relay(launch=Launch([endpoint]))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
            Client(relay, client_context(version, ["h2"]))


@asynchronous
async def test_sessions_are_resumed(start_relay: StartRelay, endpoint: str) -> None:
    """A session is resumed with the ticket of an earlier connection."""
    relay = start_relay(launch=Launch([endpoint]))
    context = client_context()
    with Client(relay, context) as first:
        first.send(HEALTH)
        assert first.rest().startswith(b"HTTP/1.1 200 ")
    with Client(relay, context, first.tls.session) as second:
        assert second.tls.session_reused


@pytest.mark.parametrize("ending", ["close_notify", "FIN", "reset"])
@asynchronous
async def test_all_that_was_sent_before_the_end_arrives(start_relay: StartRelay, endpoint: str, ending: str) -> None:
    """Messages, a close frame, and the ends of TLS and TCP that arrive at once are all processed in turn."""
    relay = start_relay(launch=Launch([endpoint]))
    uri, server_id = f"wss://{LOCALHOST}:{relay.port}", fresh_id()
    async with binary(uri, server_id, ssl=client_context()) as one:
        with Client(relay) as phone:
            phone.send(upgrade("/v1/client", server_id))
            assert phone.read().startswith(b"HTTP/1.1 101 ")
            for number in range(300):
                phone.tls.write(frame(TEXT, b"%d" % number))
            phone.tls.write(close_frame(1000))
            if ending == "close_notify":
                with contextlib.suppress(ssl.SSLWantReadError):
                    phone.tls.unwrap()
            phone.send()
            if ending == "reset":
                # The kernel has taken all of it, and the relay may have read it or not: neither may cause an error.
                phone.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                phone.sock.shutdown(socket.SHUT_WR)
                for number in range(300):
                    assert str(await received(one)).endswith(f'"frame":{number}}}')
                if ending == "FIN":
                    assert phone.rest().startswith(b"\x88")
    await eventually(lambda: not any(relay.connections().values()), "no lease is left")


@asynchronous
async def test_an_end_without_an_answer(start_relay: StartRelay, endpoint: str) -> None:
    """After its own close_notify the relay does not wait for the peer's, and cuts off a peer that stays."""
    relay = start_relay(launch=Launch([endpoint]))
    with Client(relay) as client:
        client.send(HEALTH)
        assert client.rest().startswith(b"HTTP/1.1 200 ")
        assert client.sock.recv(1) == b""
        await relay.all_leases_end()


@asynchronous
async def test_no_descriptors_left(start_relay: StartRelay, endpoint: str) -> None:
    """Without descriptors one line says so and peers go on; new ones are accepted once there are some."""
    if not (prlimit := shutil.which("prlimit")):
        pytest.skip("prlimit is not there")
    launch = Launch([endpoint], prefix=[prlimit, f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"])
    relay = start_relay("--jail-file", "", launch=launch)
    async with pair(f"wss://{LOCALHOST}:{relay.port}", ssl=client_context(), source="127.0.0.9") as peers:
        with contextlib.ExitStack() as stack:
            for number in range(2 * DESCRIPTORS):
                source = (f"127.0.1.{number % 8}", 0)
                stack.enter_context(socket.create_connection(relay.address, DEADLINE_S, source)).sendall(b"\x16")
            await relay.log_will_have("cannot accept connections")
            for _ in range(10):
                await peers.exchange()
                await asyncio.sleep(0.05)
        await peers.exchange()
        with Client(relay) as client:
            client.send(HEALTH)
            assert client.rest().startswith(b"HTTP/1.1 200 ")
    assert 1 <= relay.log().count("cannot accept connections") <= 2


@asynchronous
async def test_a_proxy_header_within_tls(start_relay: StartRelay, endpoint: str) -> None:
    """haproxy:ssl: reads the header within TLS, as Twisted does, with the same TLS below."""
    relay = start_relay("--upgrade-quota", "1/day burst 1", launch=Launch([f"haproxy:{endpoint}"]))
    attempt = upgrade("/v1/client", "unclaimed")
    for client, status in (("192.0.2.1", b"101"), ("192.0.2.1", b"429"), ("192.0.2.2", b"101")):
        with Client(relay) as proxy:
            proxy.send(f"PROXY TCP4 {client} {LOCALHOST} 40000 443\r\n".encode(), attempt)
            assert proxy.read().startswith(b"HTTP/1.1 " + status)
    await eventually(lambda: not any(relay.connections().values()), "no lease is left")
