"""How load generators count what they send and receive."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

import _frames
from _frames import TrafficError
from _traffic import _Pump, _Receiver, _run_all, _Sender

FRAMES = [_frames.header(50) + _frames.payload(0, sequence, 50) for sequence in range(4)]
SIZE = len(FRAMES[0])


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two ends of a connection that never block."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


def test_sender_repeats_its_frames(ends: tuple[socket.socket, socket.socket]) -> None:
    """A sender repeats the same frames, however writes are cut, and knows what is missing of the last."""
    sender = _Sender(ends[0], FRAMES)
    assert sender.begun_bytes == 0
    assert sender.send(SIZE + 1) == SIZE + 1
    assert sender.begun_bytes == SIZE - 1
    while sender.begun_bytes:
        sender.send(7)
    sent = ends[1].recv(1 << 16)
    assert len(sent) % SIZE == 0
    assert (b"".join(FRAMES) * 9).startswith(sent)


def test_sender_wants_frames_of_one_size(ends: tuple[socket.socket, socket.socket]) -> None:
    """All frames of a sender have one size, by which they are counted."""
    with pytest.raises(ValueError, match="several sizes"):
        _Sender(ends[0], [b"12", b"123"])


def test_sender_survives_a_full_socket(ends: tuple[socket.socket, socket.socket]) -> None:
    """Bytes that the kernel does not take are sent later."""
    sender = _Sender(ends[0], FRAMES * 5000)
    total = 0
    while sent := sender.send(1 << 20):
        total += sent
    assert sender.begun_bytes == -total % SIZE


def test_receiver_keeps_whole_frames(ends: tuple[socket.socket, socket.socket]) -> None:
    """Recording that begins inside a frame keeps frames from the next one on."""
    receiver = _Receiver(ends[1])
    ends[0].send(FRAMES[0] + FRAMES[1][:9])
    receiver.receive()
    receiver.keep()
    ends[0].send(FRAMES[1][9:] + FRAMES[2] + FRAMES[3][:-1])
    receiver.receive()
    assert receiver.payloads(SIZE) == [FRAMES[2][2:]]


def test_receiver_notices_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    """A connection that the server closes is an error."""
    ends[0].shutdown(socket.SHUT_WR)
    with pytest.raises(TrafficError, match="closed"):
        _Receiver(ends[1]).receive()


def test_pump_counts_what_arrives(ends: tuple[socket.socket, socket.socket]) -> None:
    """A pump whose ends are connected receives all that it sends, in whole frames."""
    receiver = _Receiver(ends[1])
    pump = _Pump([_Sender(ends[0], FRAMES)], [receiver], [ends[1]], (SIZE, SIZE), 8)
    pump.run(0.0001)
    pump.finish()
    assert pump.arrived == int(pump.arrived)
    assert pump.arrived * SIZE == receiver.received_bytes


def test_pumps_do_not_wait_for_each_other(ends: tuple[socket.socket, socket.socket]) -> None:
    """While what one pump has sent does not arrive, the others stream on."""
    there, unread = socket.socketpair()
    silent, partner = socket.socketpair()
    with there, unread, silent, partner:
        there.setblocking(False)
        stuck = _Pump([_Sender(there, FRAMES)], [_Receiver(silent)], [silent], (SIZE, SIZE), 8)
        moving = _Pump([_Sender(ends[0], FRAMES)], [_Receiver(ends[1])], [ends[1]], (SIZE, SIZE), 8)
        while moving.arrived < 100:
            _run_all([stuck, moving], 0.001)
        assert stuck.arrived == 0
