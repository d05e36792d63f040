"""The hub passes frames on, to all others or to one, and tells how many others there are."""

from __future__ import annotations

from pyryrelay.nostr.workers.shared.exchange import QUESTION, Exchange


class Wires:
    """Keeps what is sent to whom."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, bytes]] = []
        self.closed: list[int] = []

    def send(self, number: int, body: bytes) -> None:
        """Keep a frame: to whom, from whom, what."""
        self.sent.append((number, int.from_bytes(body[:4], "big"), body[4:]))

    def close(self, number: int) -> None:
        """Keep that."""
        self.closed.append(number)

    def take(self) -> list[tuple[int, int, bytes]]:
        """Return what was sent since the last call."""
        sent, self.sent = self.sent, []
        return sent


def test_everybody_knows_how_many_others_there_are() -> None:
    """The number comes from the hub itself, at the start and whenever it changes."""
    wires = Wires()
    hub = Exchange(wires)
    hub.joined(1)
    assert wires.take() == [(1, 0, b"\0\0\0\0")]
    hub.joined(2)
    assert wires.take() == [(1, 0, b"\0\0\0\1"), (2, 0, b"\0\0\0\1")]
    hub.left(1)
    hub.left(1)
    assert {(2, 0, b"\0\0\0\0")} == set(wires.take())
    assert wires.closed == [1, 1]
    assert hub.wait_s() is None
    hub.work()
    hub.close()


def test_frames_are_passed_on() -> None:
    """To all others, or to one; never back, and with the number of the sender."""
    wires = Wires()
    hub = Exchange(wires)
    for number in (1, 2, 3):
        hub.joined(number)
    wires.take()
    hub.receive(2, b"\0\0\0\0news")
    assert wires.take() == [(1, 2, b"news"), (3, 2, b"news")]
    hub.receive(1, b"\0\0\0\2for you")
    assert wires.take() == [(2, 1, b"for you")]
    hub.receive(1, b"\0\0\0\1to myself")
    hub.receive(1, b"\xc0")
    hub.receive(1, b"\0\0\0\x09to nobody")
    assert [one for one in wires.take() if one[0] != 9] == []


def test_a_worker_that_asks_is_told_that_the_hub_goes_on() -> None:
    """Nobody else hears of it, and the number of others is not told again."""
    wires = Wires()
    hub = Exchange(wires)
    hub.joined(1)
    hub.joined(2)
    wires.take()
    hub.receive(2, QUESTION)
    assert wires.take() == [(2, 0, b"")]
