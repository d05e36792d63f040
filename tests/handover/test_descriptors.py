"""Messages with descriptors: more than the kernel passes at once, and those that cannot be received."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from pyryrelay.handover.descriptors import (
    AT_ONCE,
    DescriptorError,
    close_all,
    receive_with_descriptors,
    send_with_descriptors,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return both ends."""
    one, other = socket.socketpair()
    one.settimeout(10)
    other.settimeout(10)
    with one, other:
        yield one, other


@pytest.mark.parametrize("count", [0, 1, AT_ONCE, AT_ONCE + 1, 2 * AT_ONCE + 7])
def test_any_number_of_descriptors(pair: tuple[socket.socket, socket.socket], count: int) -> None:
    """All arrive in order, are copies that no child inherits, and the next message is not touched."""
    reading, writing = os.pipe()
    descriptors = [reading, *[writing] * (count - 1)][:count]
    body = b"x" * 100_000
    sending = threading.Thread(target=send_with_descriptors, args=(pair[0], body, descriptors))
    sending.start()
    found, received = receive_with_descriptors(pair[1], 1 << 20, lambda body: count)
    sending.join()
    pair[0].sendall(b"next")
    assert pair[1].recv(10) == b"next"
    try:
        assert found == body
        assert len(received) == count
        assert not any(map(os.get_inheritable, received))
        for mine, copy in zip(descriptors, received, strict=True):
            assert os.path.sameopenfile(mine, copy)
    finally:
        close_all([*received, reading, writing])


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (b"", "the other process has ended"),
        (b"\0\0\0\5abc", "the other process has ended"),
        (b"\0\0", "unpack requires"),
        (struct.pack("!I", 1 << 30), "a message is too long"),
    ],
)
def test_messages_that_cannot_be_received(pair: tuple[socket.socket, socket.socket], sent: bytes, problem: str) -> None:
    """A message that is cut or too long is an error."""
    pair[0].sendall(sent)
    pair[0].close()
    with pytest.raises(DescriptorError, match=problem):
        receive_with_descriptors(pair[1], 1 << 20, lambda body: 0)


def test_what_came_with_a_bad_message_is_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    """Its descriptors do not stay open."""
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(pair[0], [b"\0\0\0\5"], [0, 0, 0])
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(DescriptorError):
        receive_with_descriptors(pair[1], 100, lambda body: 3)
    assert len(os.listdir("/proc/self/fd")) == before
