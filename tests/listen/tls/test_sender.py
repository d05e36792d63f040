"""The sending half of TLS."""

from __future__ import annotations

import pytest
from tests.support.harness import World, request_head
from tests.support.tls_peers import TLS_1_2, TLS_1_3, TlsPeer

both_versions = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])


pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


def test_our_end_is_a_close_notify_and_the_end_of_the_stream() -> None:
    """An answer is followed by close_notify and FIN, and later data is discarded."""
    world = World()
    peer = TlsPeer(world)
    peer.shake_hands()
    peer.feed(peer.encrypted(request_head("/nowhere")))
    assert peer.read().startswith(b"HTTP/1.1 404 ")
    assert peer.has_ended
    assert peer.transport.writing_ended
    assert not peer.transport.disconnecting
    peer.feed(peer.encrypted(b"x" * 10_000) + b"garbage")
    assert peer.transport.reading
    assert not peer.protocol._unread
    peer.protocol.write(b"too late")
    assert not peer.transport.taken
    world.pass_time(3.0)
    assert peer.transport.aborted
    peer.transport.settle()
    world.assert_empty()


def test_backpressure_is_the_sockets() -> None:
    """A peer that does not read pauses its producers, and resumes them when it reads again."""
    world = World()
    peer = TlsPeer(world)
    session = peer.upgrade()
    peer.transport.peer_reads = False
    session.peer.send([b'"' + b"x" * 200_000 + b'"'])
    assert session.peer.buffered_bytes > 0
    peer.transport.peer_reads = True
    peer.transport.read_all()
    assert session.peer.buffered_bytes == 0
    assert len(peer.read()) > 200_000
