"""The end of a write side, on plain sockets and on transports with wrappers around them."""

from __future__ import annotations

import socket

from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from pyryrelay.runtime.timer_wheel import SLOT_S
from pyryrelay.websocket.outbox.half_close import LINGER_S, end_socket_writing, end_writing


class Bottom:
    """A connection that records how it is ended."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def loseWriteConnection(self) -> None:  # noqa: N802
        """Record the end."""
        self.calls.append("write side")


class Tls(ProtocolWrapper):
    """A wrapper that ends its own side, as TLS does, before that of the connection below it."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__(WrappingFactory(Factory()), Protocol())
        self.calls = calls

    def loseWriteConnection(self) -> None:  # noqa: N802
        """Record the end, and end the connection below."""
        self.calls.append("alert")
        end_writing(self.transport)


def wrapper(transport: object) -> ProtocolWrapper:
    """Return a wrapper that sends nothing itself, such as one that has read a PROXY header."""
    made = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
    made.transport = transport  # type: ignore[assignment]
    return made


def test_a_bare_connection_ends_its_write_side() -> None:
    """A plain connection ends its write side and nothing else."""
    bottom = Bottom([])
    end_writing(bottom)
    end_writing(wrapper(bottom))
    assert bottom.calls == ["write side"] * 2


def test_tls_says_so_before_the_connection_below_it_ends() -> None:
    """RFC 8446 section 6.1: close_notify is sent before the write side of the connection below is closed."""
    bottom = Bottom([])
    tls = Tls(bottom.calls)
    tls.transport = wrapper(bottom)  # type: ignore[assignment]
    end_writing(wrapper(tls))
    assert bottom.calls == ["alert", "write side"]


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
