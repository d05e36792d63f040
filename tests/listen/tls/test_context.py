"""What OpenSSL is told for ``ssl:`` endpoints: versions, protocols, sessions and renegotiation."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from OpenSSL import SSL
from tests.support.harness import World, request_head
from tests.support.tls_peers import TLS_1_2, TLS_1_3, TlsPeer, client_context

both_versions = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nothing_older_than_tls_1_2(version: ssl.TLSVersion) -> None:
    """A client with older versions only gets an alert."""
    context = client_context(version)
    context.set_ciphers("ALL:@SECLEVEL=0")
    peer = TlsPeer(World(), context)
    peer.feed(peer.hello())
    assert "protocol version" in peer.refusal()
    assert peer.transport.disconnecting


@both_versions
@pytest.mark.parametrize(
    ("offered", "chosen"), [(None, None), (["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1")]
)
def test_alpn(version: ssl.TLSVersion, offered: list[str] | None, chosen: str | None) -> None:
    """HTTP/1.1 is chosen from any offer that has it, and a client without an offer is accepted."""
    peer = TlsPeer(World(), client_context(version, offered))
    peer.upgrade()
    assert peer.tls.selected_alpn_protocol() == chosen


@both_versions
def test_alpn_without_anything_in_common(version: ssl.TLSVersion) -> None:
    """RFC 7301 section 3.2: the server shall send a fatal no_application_protocol alert."""
    world = World()
    peer = TlsPeer(world, client_context(version, ["h2"]))
    peer.feed(peer.hello())
    assert bytes(peer.transport.taken).endswith(b"\x15\x03\x03\x00\x02\x02\x78")
    assert "no application protocol" in peer.refusal()
    assert peer.transport.disconnecting
    peer.transport.settle()
    world.assert_empty()


@both_versions
def test_sessions_are_resumed(version: ssl.TLSVersion) -> None:
    """A client that returns with its ticket costs no signature."""
    world, context = World(), client_context(version)
    first = TlsPeer(world, context)
    first.upgrade()
    second = TlsPeer(world, context, session=first.tls.session, factory=first.factory)
    second.shake_hands()
    assert second.tls.session_reused


def test_renegotiation_is_refused() -> None:
    """Renegotiation in TLS 1.2 gets a warning, counts like a ping, and costs no signature."""
    peer = TlsPeer(World())
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    client = SSL.Connection(context, None)
    client.set_connect_state()

    def exchange() -> bytes:
        answers = b""
        while True:
            with contextlib.suppress(SSL.WantReadError):
                client.do_handshake()
            try:
                peer.feed(client.bio_read(65536))
            except SSL.WantReadError:
                return answers
            if taken := bytes(peer.transport.taken):
                peer.transport.taken.clear()
                answers += taken
                client.bio_write(taken)

    exchange()
    client.send(request_head())
    exchange()
    assert client.recv(65536).startswith(b"HTTP/1.1 101 ")
    told: list[tuple[int, int]] = []
    peer.protocol.wrappedProtocol.received_below = lambda *what: told.append(what)
    client.renegotiate()
    with pytest.raises(SSL.Error, match="no renegotiation"):
        exchange()
    assert [records for _, records in told] == [1]
    assert peer.transport.reading
