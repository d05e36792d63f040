"""What a store's write side does, whatever the database (spec section 17). PURE.

Events come and go as canonical JSON bytes. Ids and keys are 32 bytes here. Times are unix seconds; durations that end
in ``budget_s`` are seconds of a monotonic clock.

Rules:

- Every method is one transaction, or a row of them in which each leaves the store whole. When it returns, what it did
  is on the disk; when it raises ``StoreError``, nothing of the transaction that failed is.
- After a ``StoreError`` the store can still be used, and works again when the cause is gone.
- ``seq`` is the number of a stored event. It only grows, in the order of commits, and is never used twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol

__all__ = [
    "Checked",
    "OlderStoreError",
    "Outcome",
    "Retention",
    "RetentionRule",
    "Statistics",
    "StoreError",
    "StoreInUseError",
    "Swept",
    "WritableStore",
    "Written",
]


class StoreError(Exception):
    """The store could not do it; the text is one line without content of events."""


class StoreInUseError(StoreError):
    """Another process writes to the store."""


class OlderStoreError(StoreError):
    """The store has a version of an earlier release, which its writer upgrades when it opens it."""


class Outcome(IntEnum):
    """What became of an event that was to be written."""

    STORED = 0
    DUPLICATE = 1
    """An event with this id is stored already."""
    SUPERSEDED = 2
    """A version that wins over it is stored (spec section 5)."""
    DELETED = 3
    """Its author has deleted it, or its address, before it came."""
    FAILED = 5
    """It is not for a store: an ephemeral event."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch; the first two lists are as long as the batch."""

    outcomes: list[Outcome]
    seqs: list[int]
    """0 if the event is not in the store now. For one that was ``STORED``, that is: a later event of the same batch has
    replaced or deleted it. It is answered as stored, and delivered to nobody."""
    removed: list[bytes]
    """The ids of events of earlier batches that were replaced, or deleted by a kind 5."""


class Swept(NamedTuple):
    """What a piece of housekeeping did."""

    removed: list[bytes]
    """The ids of the events that are gone."""
    more: bool
    """Whether there is more to do: call again, after the writes that wait."""


class RetentionRule(NamedTuple):
    """How long events of some kinds stay. None is no bound."""

    kinds: frozenset[int]
    age_s: int | None
    newest: int | None
    """How many of each author stay, all kinds of the rule together."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept. The first rule that has a kind decides about it. None is no limit.

    Kinds 5 and 62 always stay. Kinds 0, 3 and 10000 to 19999 stay unless a rule names them.
    """

    rules: Sequence[RetentionRule] = ()
    max_events: int | None = None
    max_bytes: int | None = None
    spared: frozenset[bytes] = frozenset()
    """The authors whose events stay, whatever the rest says."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers about a store."""

    events: dict[str, int]
    """How many are stored, by the values of ``KindClass``."""
    database_bytes: int
    """The size on disk, with logs."""
    version: int
    last_seq: int


@dataclass(slots=True)
class Checked:
    """What a check has found."""

    events: int = 0
    """How many events were looked at."""
    problems: list[str] = field(default_factory=list)
    """One line each, without content of events; empty if all is well."""


class WritableStore(Protocol):
    """The write side of a store. One process has it, and one thread uses it."""

    def write(self, events: Sequence[bytes], *, received_s: int) -> Written:
        """Store a batch of canonical events in one transaction, as if they came one by one.

        Duplicates, replacement and deletions are decided here (spec section 4, steps 11, 17, 18, 20); signatures and
        policies are not looked at. ``received_s`` decides which stored versions have expired.
        """

    def tend(self, *, is_idle: bool = False) -> None:
        """Do what writes have left to be done, if it is much; all of it if ``is_idle``: nothing else is to do now.

        Call it when writes are answered, since it may take some 100 ms. Events are stored, and found, without it. It
        is not needed: the next write does what has to be done.
        """

    def sweep(self, wall_s: int, budget_s: float) -> Swept:
        """Remove events that have expired, for about ``budget_s``."""

    def retain(self, retention: Retention, wall_s: int, budget_s: float) -> Swept:
        """Remove what is not to be kept, for about ``budget_s``."""

    def delete(self, ids: Collection[bytes], *, forever: bool) -> list[bytes]:
        """Remove these events, kinds 5 and 62 too, and return the ids of those that were there.

        ``forever`` refuses them from now on, whether they were there or not.
        """

    def probe(self) -> None:
        """Write something that changes nothing. Raises ``StoreError`` while nothing can be written."""

    def statistics(self) -> Statistics:
        """Count what is stored."""

    def since(self, seq: int, most: int) -> list[tuple[int, bytes]]:
        """Return up to ``most`` events whose number is higher than ``seq``, in order, with their numbers."""

    def positions(self) -> dict[str, str]:
        """Return the positions that were kept, by name."""

    def keep_positions(self, positions: Mapping[str, str]) -> None:
        """Keep how far something has got, by name; other names keep theirs."""

    def check(self, budget_s: float | None = None) -> Checked:
        """Verify the database and, up to ``budget_s``, that each event has its id and is found by its indexes."""

    def compact(self) -> None:
        """Give unused space back to the file system. It takes long, and nothing else is done meanwhile."""

    def close(self) -> None:
        """Close the database. Nothing but this may be called afterwards."""
