"""The relay's side of the command: events are stored and delivered, deletions reach everybody, errors are one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.signed_events import WALL_S, Author
from twisted.internet.defer import Deferred, fail, succeed

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.storage.sqlite.store import SqliteWriter, open_writer
from pyryrelay.nostr.tools.actions import Actions
from pyryrelay.nostr.workers import store_writer
from pyryrelay.nostr.workers.store_writer import Done, Stored, WriterError
from pyryrelay.protocol import ActionError

ALICE = Author("alice")


class FakeRelay:
    """A relay that notes what it is told."""

    def __init__(self) -> None:
        self.options = NostrOptions()
        self.delivered: list[tuple[str, bytes, int]] = []
        self.gone: list[tuple[str, list[str]]] = []

    def imported(self, events: Sequence[tuple[Event, bytes, int]]) -> None:
        """Deliver events."""
        self.delivered += [(event.content, json, seq) for event, json, seq in events]

    def removed(self, reason: str, ids: Sequence[bytes]) -> None:
        """Forget events."""
        self.gone.append((reason, [one.hex() for one in ids]))


class InlineWriter:
    """A writer that works at once, on a real store; or fails."""

    def __init__(self, store: SqliteWriter) -> None:
        self._store = store
        self.batches: list[int] = []
        self.is_broken = False

    def write(self, events: Sequence[bytes], done: Done, weight: int | None = None) -> None:
        """Store events."""
        self.batches.append(len(events))
        if self.is_broken:
            done(None)
            return
        written = self._store.write(events, received_s=WALL_S)
        done(Stored(written.outcomes, written.seqs))

    def call(self, name: str, arguments: dict[str, object] | None = None) -> Deferred[object]:
        """Do something else, with results of plain types."""
        if self.is_broken:
            return fail(WriterError("the disk is full"))
        calls: dict[str, Callable[..., object]] = {
            "delete": lambda ids, forever: self._store.delete(ids, forever=forever),
            "statistics": self._store.statistics,
            "compact": self._store.compact,
        }
        return succeed(msgspec.to_builtins(calls[name](**(arguments or {})), builtin_types=(bytes,)))


class World:
    """Actions on a store in a file."""

    def __init__(self, directory: Path) -> None:
        self.store = open_writer(f"sqlite:{directory / 'events.sqlite'}")
        self.relay, self.writer = FakeRelay(), InlineWriter(self.store)
        self.running: InlineWriter | None = self.writer
        self.waiting: int | None = None
        self.actions = Actions(
            self.relay, lambda: self.running, lambda: "sqlite:/events.sqlite", lambda: WALL_S, lambda: self.waiting
        ).all()

    def act(self, name: str, body: bytes = b"") -> Any:
        """Return the decoded answer of an action. Raises `ActionError`."""
        answer = self.actions[name](body)
        if isinstance(answer, bytes):
            return json.loads(answer)
        results: list[Any] = []
        answer.addBoth(results.append)
        if not isinstance(results[0], bytes):
            results[0].raiseException()
        return json.loads(results[0])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Actions on an empty store."""
    world = World(tmp_path)
    yield world
    world.store.close()


def test_imported_events_are_stored_and_delivered_live(world: World) -> None:
    """Each outcome is counted, and what is new is delivered with its number, once."""
    old, new = ALICE.line("old", kind=0), ALICE.line("new", kind=0, created_at=WALL_S + 1)
    note = ALICE.line("note")
    assert world.act("import", b"\n".join([note, new, old, note])) == {"accepted": 2, "superseded": 1, "duplicate": 1}
    assert world.relay.delivered == [("note", note, 1), ("new", new, 2)]
    assert world.act("import", note) == {"duplicate": 1}
    assert len(world.relay.delivered) == 2


def test_what_was_replaced_in_the_same_import_is_not_delivered(world: World) -> None:
    """Of two versions in one batch, only the winner is delivered, and both were accepted."""
    old, new = ALICE.line("old", kind=0), ALICE.line("new", kind=0, created_at=WALL_S + 1)
    assert world.act("import", old + b"\n" + new) == {"accepted": 2}
    assert [content for content, _, _ in world.relay.delivered] == ["new"]


def test_what_no_store_may_have_is_refused(world: World) -> None:
    """The relay does not believe what can be found out at once: shape, id, and kinds that are never stored."""
    other = json.dumps(json.loads(ALICE.line()) | {"content": "other"}).encode()
    expired = ALICE.line(tags=[["expiration", "1"]])
    lines = [b"rubbish", other, expired, ALICE.line(kind=22242), ALICE.line(kind=20001)]
    told = world.act("import", b"\n".join(lines))
    assert told == {"not_an_event": 1, "id": 1, "expired": 1, "credential": 1, "ephemeral": 1}
    assert world.act("import") == {}
    assert world.writer.batches == []


def test_long_imports_are_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body with many events is stored in several batches."""
    monkeypatch.setattr(store_writer, "MAX_BATCH_WEIGHT", 2)
    lines = [ALICE.line(str(number)) for number in range(5)]
    assert world.act("import", b"\n".join(lines)) == {"accepted": 5}
    assert world.writer.batches == [2, 2, 1]


def test_a_store_that_cannot_be_written(world: World) -> None:
    """Events that could not be stored are counted so, and delivered to nobody; other calls fail with the reason."""
    world.writer.is_broken = True
    assert world.act("import", ALICE.line()) == {"store": 1}
    assert world.relay.delivered == []
    for name, body in (("delete", b'{"ids":[],"forever":false}'), ("stats", b""), ("compact", b"")):
        with pytest.raises(ActionError, match="the disk is full"):
            world.act(name, body)


def test_deletions_reach_the_relay(world: World) -> None:
    """Only events that were there are counted and forgotten; forever means that they do not come back."""
    event = ALICE.event("note")
    world.act("import", ALICE.line("note"))
    body = json.dumps({"ids": [event.id, "00" * 32], "forever": True}).encode()
    assert world.act("delete", body) == {"deleted": 1}
    assert world.act("delete", body) == {"deleted": 0}
    assert world.relay.gone == [("tool", [event.id])]
    assert world.act("import", ALICE.line("note")) == {"deleted": 1}


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"ids":["x"],"forever":true}', b'{"ids":[1],"forever":true}'])
def test_a_wrong_deletion(world: World, body: bytes) -> None:
    """A body that names no ids is refused with its form."""
    with pytest.raises(ActionError, match="the body must be"):
        world.act("delete", body)


def test_figures_and_care(world: World) -> None:
    """Figures are the store's, compaction has nothing to tell, and commands learn where the events are."""
    world.act("import", ALICE.line("note"))
    assert world.act("stats")["events"]["regular"] == 1
    assert "events_to_announce" not in world.act("stats")
    world.waiting = 7
    assert world.act("stats")["events_to_announce"] == 7
    assert world.act("compact") == {}
    assert world.act("store") == {"database": "sqlite:/events.sqlite"}


def test_lists(world: World) -> None:
    """What is allowed and denied by name is told by the name of its option, in order."""
    assert world.act("lists") == []
    world.relay.options = replace(
        NostrOptions(), nostr_deny_kind=frozenset({7, 4}), nostr_deny_word=frozenset({"spam"})
    )
    assert world.act("lists") == [
        {"list": "nostr-deny-kind", "entry": 4, "origin": "configuration"},
        {"list": "nostr-deny-kind", "entry": 7, "origin": "configuration"},
        {"list": "nostr-deny-word", "entry": "spam", "origin": "configuration"},
    ]


@pytest.mark.parametrize("name", ["import", "stats", "compact"])
def test_a_relay_that_has_not_started(world: World, name: str) -> None:
    """Before there is a writer, the operator is told to try again."""
    world.running = None
    with pytest.raises(ActionError, match="try again"):
        world.act(name, ALICE.line())
