"""What a worker has from its supervisor."""

from __future__ import annotations

import socket

from pyryrelay.workers.place import MeshEnds, WorkerPlace
from pyryrelay.workers.rpc import Rpc


def test_a_place_needs_no_sockets() -> None:
    """A place without sockets, mesh and shared children is that of a relay whose parts are tested alone."""
    place = WorkerPlace(index=1, count=2, boot=7, rpc=Rpc())
    assert (place.sockets.endpoints, place.mesh, dict(place.children)) == (frozenset(), None, {})


def test_what_waits_is_discarded() -> None:
    """Connections that nobody received are closed, and what comes later is received."""
    receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with receiving, sending:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                socket.send_fds(sending, [b"a head"], [theirs.fileno()])
            sending.send(b"another message")
            MeshEnds(receiving, [sending]).discard()
            assert ours.recv(1) == b""
        sending.send(b"later")
        assert receiving.recv(10) == b"later"
