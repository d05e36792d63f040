"""Sentences, and what is told of them. Times are seconds on one monotonic clock."""

from __future__ import annotations

from typing import Final, NamedTuple

from pyryrelay.guard.address.keys import AddressKey, network_of
from pyryrelay.guard.address.lists import IPNetwork

__all__ = ["SAME_S", "Changes", "News", "Sentence", "origin_of_worker"]

_WORKER: Final = "worker "
"""What the names of workers begin with; no name of a host does."""

SAME_S: Final = 0.5
"""Sentences that end within this time of each other are the same: their ends were converted between clocks."""


def origin_of_worker(index: int) -> str:
    """Return the `Sentence.origin` of a worker of this host."""
    return f"{_WORKER}{index}"


class Sentence(NamedTuple):
    """``key`` is jailed before ``until_s``. It was sentenced ``times`` times in a row, 0 if only by hand.

    ``origin`` names the server that passed the sentence, "" if it was this one.
    """

    key: AddressKey
    until_s: float
    times: int
    origin: str = ""

    @property
    def origin_for_others(self) -> str:
        """The ``origin`` that other hosts are told; "" for a worker of this host, since they have workers as well."""
        return "" if self.origin.startswith(_WORKER) else self.origin

    @property
    def network(self) -> IPNetwork:
        """The network that the key stands for."""
        return network_of(self.key)


class Changes(NamedTuple):
    """Changes since the last call: sentences as they are now, and keys that have none any more."""

    kept: list[Sentence]
    gone: list[AddressKey]


class News(NamedTuple):
    """What other servers are to be told about ``key``: that ``released`` is over, then that ``sentence`` was passed.

    Either may be None. A sentence that an operator shortens has both: others follow an end that is earlier only if the
    sentence before was released.
    """

    key: AddressKey
    sentence: Sentence | None
    released: Sentence | None = None
