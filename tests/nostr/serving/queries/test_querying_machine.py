"""A subscription under every order of events: each event once, nothing after CLOSE, EOSE once."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.nostr_relay import CLIENT, Client, FakeQuery, World, as_dict, event, json_of

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.filters import Filter, matches

KINDS = (1, 2)
IDS = ("a", "b")


class Model:
    """What a subscription must have been sent."""

    def __init__(self, kind: int) -> None:
        self.filter = Filter(kinds=(kind,))
        self.sent: list[str] = []
        self.has_eose = False
        self.removed_before: set[str] = set()


class Subscriptions(RuleBasedStateMachine):
    """One client with two ids, one publisher, and a store that answers scans row by row."""

    @initialize()
    def begin(self) -> None:
        """Connect everybody."""
        self.world = World(nostr_max_scans=1, nostr_reject_older_s=None, nostr_work_quota=None)
        self.world.writer.is_prompt = False
        self.client: Client = self.world.client()
        self.publisher: Client = self.world.client(CLIENT)
        self.open: dict[str, Model] = {}
        self.progress: dict[int, list[bytes]] = {}
        self.committed: list[Event] = []
        self.removed: set[str] = set()
        self.published = 0

    # What clients do

    @rule(id_=st.sampled_from(IDS), kind=st.sampled_from(KINDS))
    def req(self, id_: str, kind: int) -> None:
        """Open or replace a subscription."""
        self._read()
        self.client.send(["REQ", id_, {"kinds": [kind]}])
        self.open[id_] = Model(kind)
        self.open[id_].removed_before = set(self.removed)

    @rule(id_=st.sampled_from(IDS))
    def close(self, id_: str) -> None:
        """End a subscription."""
        self._read()
        self.client.send(["CLOSE", id_])
        self.open.pop(id_, None)

    @rule(kind=st.sampled_from(KINDS), again=st.booleans())
    def publish(self, kind: int, again: bool) -> None:
        """Hand an event to the writer, perhaps one that was handed to it before."""
        self.published += not again
        self.publisher.send(["EVENT", as_dict(event(str(self.published), kind=kind))])

    @rule()
    def block(self) -> None:
        """The client stops reading."""
        self.client.peer.blocks, self.client.peer.buffered_bytes = True, 1

    @rule()
    def unblock(self) -> None:
        """The client reads everything."""
        self.client.peer.drain()

    # What the store does

    @precondition(lambda self: self.world.writer.waiting)
    @rule()
    def commit(self) -> None:
        """Commit what the writer was given first."""
        (json, *_), _ = self.world.writer.waiting[0]
        before = self.world.writer.seq
        self.world.writer.commit()
        if self.world.writer.seq > before:
            self.committed.append(next(one for one in self._all() if json_of(one) == json))

    @precondition(lambda self: self.world.writer.waiting and self.committed)
    @rule(data=st.data())
    def commit_and_remove(self, data: st.DataObject) -> None:
        """Commit an event that removes another one."""
        victim = data.draw(st.sampled_from(self.committed)).id
        if victim not in self.removed:
            self.removed.add(victim)
            self.world.writer.outcomes[victim] = 3  # type: ignore[assignment]
            (json, *_), _ = self.world.writer.waiting[0]
            before = self.world.writer.seq
            self.world.writer.commit([victim])
            if self.world.writer.seq > before:
                self.committed.append(next(one for one in self._all() if json_of(one) == json))

    @precondition(lambda self: self.world.readers.running)
    @rule()
    def snapshot(self) -> None:
        """A scan begins."""
        (scan,) = self.world.readers.running
        if id(scan) not in self.progress:
            self._begin(scan)

    @precondition(lambda self: self.world.readers.running)
    @rule()
    def row(self) -> None:
        """A scan sends its next row."""
        (scan,) = self.world.readers.running
        rows = self.progress.get(id(scan)) or ()
        if rows:
            scan.rows(self.progress[id(scan)].pop(0))

    @precondition(lambda self: self.world.readers.running)
    @rule()
    def end(self) -> None:
        """A scan sends the rest, and ends."""
        (scan,) = self.world.readers.running
        if id(scan) not in self.progress:
            self._begin(scan)
        rows = self.progress.pop(id(scan))
        if rows:
            scan.rows(*rows)
        scan.done("finish")

    def _begin(self, scan: FakeQuery) -> None:
        scan.listener.snapshot(self.world.writer.seq)
        (one,) = scan.query.filters
        events = {json_of(known): known for known in self._all()}
        rows = [json for _, json in self.world.writer.stored if matches(one, events[json])]
        self.progress[id(scan)] = rows[::-1]

    @rule()
    def turn(self) -> None:
        """Deliver."""
        self.world.turn()

    # What must hold

    def _all(self) -> list[Event]:
        return [event(str(number), kind=kind) for number in range(self.published + 1) for kind in KINDS]

    def _read(self) -> None:
        """Note what the client was sent."""
        for message in self.client.peer.take():
            verb, id_ = message[:2]
            assert id_ in self.open, "nothing is sent under an id that is closed"
            model = self.open[id_]
            if verb == "EOSE":
                assert not model.has_eose, "EOSE comes once"
                model.has_eose = True
            else:
                assert verb == "EVENT"
                assert message[2]["id"] not in model.sent, "each event comes once"
                assert message[2]["kind"] in (model.filter.kinds or ())
                assert message[2]["id"] not in model.removed_before, "what was removed before is not sent"
                model.sent.append(message[2]["id"])

    @invariant()
    def what_was_sent_is_right(self) -> None:
        """Look at everything that was sent."""
        if hasattr(self, "client"):
            self._read()

    def teardown(self) -> None:
        """In the end, each subscription has all events that are left."""
        if not hasattr(self, "client"):
            return
        while self.world.writer.waiting:
            self.commit()
        self.client.peer.drain()
        while self.world.readers.running:
            self.end()
        self.turn()
        self._read()
        for model in self.open.values():
            assert model.has_eose
            expected = {one.id for one in self.committed if matches(model.filter, one)} - self.removed
            assert expected <= set(model.sent)


Subscriptions.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSubscriptions = Subscriptions.TestCase
