"""A store in memory that is obviously right: a list of events and a list of tombstones, searched from end to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from pyryrelay.nostr.events import Event, canonical, event_id, expiration, stored_event, tag_values
from pyryrelay.nostr.kinds import KindClass, address, class_of
from pyryrelay.nostr.storage.interface import Checked, Outcome, Retention, Statistics, StoreError, Swept, Written

PERMANENT = (5, 62)


class ModelStore:
    """Both sides of a store. ``events`` maps ids to events; ``seqs`` to their numbers."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.seqs: dict[str, int] = {}
        self._deletions: list[Event] = []
        self._forever: set[str] = set()
        self._last_seq = 0
        self._positions: dict[str, str] = {}
        self.is_broken = False
        """Whether nothing can be written."""

    # Writing

    def write(self, events: Sequence[bytes], *, received_s: int) -> Written:
        """Store events one by one."""
        self._check_whole()
        before = dict(self.events)
        outcomes = [self._write(stored_event(json), received_s) for json in events]
        seqs = []
        for json, outcome in zip(events, outcomes, strict=True):
            event = stored_event(json)
            is_there = outcome is Outcome.STORED and event.id in self.events
            if is_there and event.id not in self.seqs:
                self._last_seq += 1
                self.seqs[event.id] = self._last_seq
            seqs.append(self.seqs[event.id] if is_there else 0)
        gone = [bytes.fromhex(id_) for id_ in before if id_ not in self.events]
        return Written(outcomes, seqs, gone)

    def _write(self, event: Event, received_s: int) -> Outcome:
        if class_of(event.kind) is KindClass.EPHEMERAL:
            return Outcome.FAILED
        if event.id in self.events:
            return Outcome.DUPLICATE
        if event.kind not in PERMANENT and (
            event.id in self._forever or any(names(deletion, event) for deletion in self._deletions)
        ):
            return Outcome.DELETED
        for other in self._at(event):
            expires = expiration(other)
            if (expires is None or expires > received_s) and rank(other) < rank(event):
                return Outcome.SUPERSEDED
            self._drop([other])
        self.events[event.id] = event
        if event.kind == 5:
            self._deletions.append(event)
            self._drop(other for other in self.events.values() if other.kind not in PERMANENT and names(event, other))
        return Outcome.STORED

    def _at(self, event: Event) -> list[Event]:
        place = address(event)
        return [other for other in self.events.values() if place and address(other) == place]

    def _drop(self, events: Iterable[Event]) -> list[bytes]:
        ids = [event.id for event in events]
        for id_ in ids:
            self.events.pop(id_, None)
            self.seqs.pop(id_, None)
        return [bytes.fromhex(id_) for id_ in ids]

    # Housekeeping

    def tend(self, *, is_idle: bool = False) -> None:
        """Do nothing."""

    def sweep(self, wall_s: int, budget_s: float) -> Swept:
        """Remove all expired events."""
        expired = [event for event in self.events.values() if (expiration(event) or wall_s + 1) <= wall_s]
        return Swept(self._drop(expired), False)

    def retain(self, retention: Retention, wall_s: int, budget_s: float) -> Swept:
        """Apply the rules, then the number of events; sizes in bytes mean nothing here."""
        removed: list[bytes] = []
        decided = set(PERMANENT)
        for rule in retention.rules:
            kinds = rule.kinds - decided
            decided |= rule.kinds
            chosen = [event for event in self._newest_first() if event.kind in kinds]
            chosen = [event for event in chosen if bytes.fromhex(event.pubkey) not in retention.spared]
            if rule.age_s is not None:
                old = [event for event in chosen if event.created_at < wall_s - rule.age_s]
                removed += self._drop(old)
                chosen = [event for event in chosen if event not in old]
            if rule.newest is not None:
                places: Counter[str] = Counter()
                for event in chosen:
                    places[event.pubkey] += 1
                    if places[event.pubkey] > rule.newest:
                        removed += self._drop([event])
        if retention.max_events is not None:
            kept = {*PERMANENT, *({0, 3, *range(10_000, 20_000)} - decided)}
            oldest = [
                event
                for event in reversed(self._newest_first())
                if event.kind not in kept and bytes.fromhex(event.pubkey) not in retention.spared
            ]
            oldest.sort(key=lambda event: class_of(event.kind) is KindClass.ADDRESSABLE)
            removed += self._drop(oldest[: max(0, len(self.events) - retention.max_events)])
        return Swept(removed, False)

    def delete(self, ids: Collection[bytes], *, forever: bool) -> list[bytes]:
        """Remove events, and refuse them from now on if asked to."""
        names_ = [id_.hex() for id_ in ids]
        if forever:
            self._forever.update(names_)
        return self._drop([self.events[id_] for id_ in dict.fromkeys(names_) if id_ in self.events])

    def probe(self) -> None:
        """Succeed unless nothing can be written."""
        self._check_whole()

    def _check_whole(self) -> None:
        if self.is_broken:
            raise StoreError("disk full")

    def since(self, seq: int, most: int) -> list[tuple[int, bytes]]:
        """Return events with higher numbers, in order."""
        numbered = sorted((self.seqs[id_], canonical(event).json) for id_, event in self.events.items())
        return [one for one in numbered if one[0] > seq][:most]

    def positions(self) -> dict[str, str]:
        """Return what was kept."""
        return dict(self._positions)

    def keep_positions(self, positions: Mapping[str, str]) -> None:
        """Keep positions."""
        self._check_whole()
        self._positions.update(positions)

    def statistics(self) -> Statistics:
        """Count events."""
        counts = Counter(class_of(event.kind).value for event in self.events.values())
        names_ = ("regular", "replaceable", "addressable")
        return Statistics({name: counts[name] for name in names_}, 0, 1, self._last_seq)

    def check(self, budget_s: float | None = None) -> Checked:
        """Verify the ids."""
        wrong = [id_ for id_, event in self.events.items() if event_id(canonical(event).preimage) != id_]
        return Checked(len(self.events), wrong)

    def compact(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    # Reading

    def snapshot(self) -> int:
        """Return the last number that was given to an event."""
        return self._last_seq

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Return those ids that are stored."""
        return {id_ for id_ in ids if id_.hex() in self.events}

    def query(self, *wanted: tuple[Callable[[Event], bool], int | None]) -> list[Event]:
        """Return the union of what matches, each with a limit of its own, newest first."""
        found: dict[str, Event] = {}
        for matches, limit in wanted:
            chosen = [event for event in self._newest_first() if matches(event)]
            found.update((event.id, event) for event in (chosen if limit is None else chosen[:limit]))
        return sorted(found.values(), key=rank)

    def _newest_first(self) -> list[Event]:
        return sorted(self.events.values(), key=rank)


def rank(event: Event) -> tuple[int, str]:
    """Return what events are sorted by: newer first, then the smaller id."""
    return -event.created_at, event.id


def names(deletion: Event, event: Event) -> bool:
    """Tell whether a kind 5 deletes an event (NIP-09)."""
    recipients = set(tag_values(event, "p")) if event.kind == 1059 else set()
    if event.id in tag_values(deletion, "e") and deletion.pubkey in {event.pubkey, *recipients}:
        return True
    place = address(event)
    return (
        place is not None
        and event.pubkey == deletion.pubkey
        and event.created_at <= deletion.created_at
        and f"{place[0]}:{place[1]}:{place[2]}" in tag_values(deletion, "a")
    )
