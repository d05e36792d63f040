"""What the relay gets from its surroundings, and what it asks of its connections.

Times are seconds of the monotonic clock, but for ``wall_s``, which is unix time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pyryrelay.guard import ClientAddress
from pyryrelay.nostr.workers.store_readers import StoreReaders
from pyryrelay.nostr.workers.store_writer import StoreWriter
from pyryrelay.nostr.workers.verifiers import Verifiers


class Log(Protocol):
    """The log of what happens. No argument ever contains content, tags, filters, challenges or keys."""

    def refused(self, verb: str, client: ClientAddress | None, word: str) -> None:
        """Log that an event or a filter was refused."""

    def slow_client(self, client: ClientAddress | None) -> None:
        """Log that a client was closed because it does not read what it is sent."""

    def store_health(self, is_writable: bool, cause: str) -> None:
        """Log that the store cannot be written any more, or can again."""

    def clock_jumped(self, jump_s: int) -> None:
        """Log that the wall clock was set, forward or back."""

    def child_ended(self, role: str, reason: str, delay_s: float) -> None:
        """Log that a child process has ended by itself, and is started again after ``delay_s``."""


class Member(Protocol):
    """An open connection, as the relay sees it."""

    @property
    def client(self) -> ClientAddress | None:
        """The address of its client."""

    @property
    def subscriptions(self) -> int:
        """How many subscriptions it has open."""

    def drain(self) -> None:
        """Refuse and end what can be: the relay is shutting down."""

    def leave(self) -> None:
        """See `pyryrelay.nostr.serving.moving.Mover`."""

    def stay(self) -> None:
        """See `pyryrelay.nostr.serving.moving.Mover`."""

    def tick(self, now: float) -> None:
        """Look after queries that wait."""

    def close_if_idle(self, now: float, timeout_s: float) -> None:
        """Close the connection if it has no use and has sent nothing for so long."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the relay gets from its surroundings; see `pyryrelay.protocol.Services`."""

    now: Callable[[], float]
    wall_s: Callable[[], int]
    call_later: Callable[[float, Callable[[], None]], object]
    strike: Callable[[ClientAddress, str], None]
    is_exempt: Callable[[ClientAddress], bool]
    log: Log


@dataclass(frozen=True, slots=True)
class Store:
    """The child processes that work for the relay."""

    writer: StoreWriter
    readers: StoreReaders
    verifiers: Verifiers

    @property
    def is_healthy(self) -> bool:
        """Whether events can be verified, stored and read; where one of these fails, clients are refused."""
        return self.writer.is_healthy and self.readers.is_available and self.verifiers.is_available
