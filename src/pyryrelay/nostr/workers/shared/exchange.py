"""What workers tell each other that is not stored: a hub which passes frames on.

A frame to the hub begins with 4 bytes, the number of the worker that it is for, 0 for all others. A frame from the hub
begins with the number of the worker that it is from. From 0 is what the hub itself says: how many others there are, in
4 bytes, whenever that changes; and nothing more, when a worker has sent it nothing but a 0, to see whether it goes on.
Numbers are big-endian. The hub does not look into what it passes on.
"""

from __future__ import annotations

from typing import Final

from pyryrelay.nostr.workers.shared.clients import Connected

__all__ = ["ALL_OTHERS", "HUB", "NUMBER_BYTES", "QUESTION", "Exchange"]

NUMBER_BYTES: Final = 4
ALL_OTHERS: Final = 0
"""The address of all other workers."""
HUB: Final = 0
"""The sender of what the hub says."""
QUESTION: Final = HUB.to_bytes(NUMBER_BYTES, "big")
"""Whether the hub goes on, and its answer."""


class Exchange:
    """The hub; see `pyryrelay.nostr.workers.shared.clients.SharedWorker`."""

    def __init__(self, clients: Connected) -> None:
        self._connected = clients
        self._numbers: list[int] = []

    def joined(self, number: int) -> None:
        """Tell everybody that there is one more."""
        self._numbers.append(number)
        self._tell_count()

    def receive(self, number: int, body: bytes) -> None:
        """Pass a frame on."""
        if body == QUESTION:
            self._connected.send(number, QUESTION)
        if len(body) <= NUMBER_BYTES:  # what every child is told first is nothing here
            return
        to = int.from_bytes(body[:NUMBER_BYTES], "big")
        passed = number.to_bytes(NUMBER_BYTES, "big") + body[NUMBER_BYTES:]
        for other in self._numbers if to == ALL_OTHERS else [to]:
            if other != number:
                self._connected.send(other, passed)

    def left(self, number: int) -> None:
        """Tell everybody that there is one less."""
        if number in self._numbers:
            self._numbers.remove(number)
        self._connected.close(number)
        self._tell_count()

    def work(self) -> None:
        """Do nothing: all is done as it comes."""

    def wait_s(self) -> float | None:
        """Wait for the next frame."""
        return None

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _tell_count(self) -> None:
        others = max(0, len(self._numbers) - 1)
        body = HUB.to_bytes(NUMBER_BYTES, "big") + others.to_bytes(4, "big")
        for number in self._numbers:
            self._connected.send(number, body)
