"""The end of the write side of a plain socket."""

from __future__ import annotations

import socket

from pyryrelay.runtime.timer_wheel import SLOT_S
from pyryrelay.websocket.outbox.half_close import LINGER_S, end_socket_writing


def test_a_socket_can_be_read_after_its_write_side_has_ended() -> None:
    """The peer sees the end behind all sent data, and can still send."""
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.sendall(b"last")
        end_socket_writing(ours)
        assert (peer.recv(9), peer.recv(9)) == (b"last", b"")
        peer.sendall(b"answer")
        assert ours.recv(9) == b"answer"


def test_a_socket_whose_peer_is_gone_has_no_write_side_to_end() -> None:
    """Ending the write side of a lost connection is no error: the transport notices the loss itself."""
    ours, peer = socket.socketpair()
    peer.close()
    end_socket_writing(ours)
    ours.close()
    end_socket_writing(ours)


def test_the_peers_end_is_waited_for_a_second_at_most() -> None:
    """The peer's end is waited for at most a second, plus a slot of the timer wheel."""
    assert LINGER_S > 0
    assert LINGER_S + SLOT_S <= 1.0
