"""The clients with real processes, which may be killed at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from tests.support.children import RealChildren

from pyryrelay.nostr.events import Event, canonical, event_id
from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.visibility import View
from pyryrelay.nostr.workers.store_readers import StoreReaders
from pyryrelay.nostr.workers.store_writer import Stored, StoreWriter
from pyryrelay.nostr.workers.verifiers import Verifiers
from pyryrelay.nostr.workers.wire import (
    Aborted,
    Hint,
    Query,
    QueryLimits,
    ReaderConfig,
    Verdict,
    VerifierConfig,
    WriterConfig,
)

EVERYTHING = Query(
    client="192.0.2.1",
    filters=(Filter(),),
    view=View(frozenset(), frozenset({4}), 0),
    limits=QueryLimits(max_limit=5000, default_limit=5000, max_results=None, max_work=None),
    timeout_s=None,
)


class Ignored:
    """What the writer reports besides answers is not looked at here."""

    def writer_ready(self, seq: int, events: int) -> None:
        """Ignore that."""

    def removed(self, reason: str, ids: Sequence[bytes]) -> None:
        """Ignore that."""

    def removed_elsewhere(self, ids: Sequence[bytes]) -> None:
        """There is no other worker."""

    def arrived(self, events: Sequence[bytes], seqs: Sequence[int]) -> None:
        """There is no other worker."""

    def batch_written(self, events: int, took_s: float) -> None:
        """Ignore that."""

    def health_changed(self, is_writable: bool, cause: str) -> None:
        """Ignore that."""


class Result:
    """The rows of a query, and how it ended."""

    def __init__(self) -> None:
        self.found: list[bytes] = []
        self.ended = False
        self.aborted: Aborted = None

    def snapshot(self, seq: int) -> None:
        """Ignore that."""

    def rows(self, rows: Sequence[bytes]) -> None:
        """Keep the rows."""
        self.found += rows

    def counted(self, count: int, is_approximate: bool, hll: str | None) -> None:
        """Ignore that."""

    def done(self, hint: Hint, work: int, aborted: Aborted) -> None:
        """Keep that."""
        self.ended, self.aborted = True, aborted


@dataclass
class Relay:
    """All clients, on one store."""

    children: RealChildren
    writer: StoreWriter
    readers: StoreReaders
    verifiers: Verifiers

    def everything(self) -> list[bytes]:
        """Return all stored events."""
        result = Result()
        self.readers.open(EVERYTHING, result, credit=1 << 30)
        self.children.pump(lambda: result.ended, "a query")
        assert result.aborted is None
        return result.found


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """Running processes on a new store."""
    children, url = RealChildren(), f"sqlite:{tmp_path}/nostr.sqlite"
    relay = Relay(
        children,
        StoreWriter(children.services, WriterConfig(database=url), Ignored()),
        StoreReaders(children.services, ReaderConfig(database=url), 1),
        Verifiers(children.services, VerifierConfig(database=url), 1),
    )
    for client in (relay.writer, relay.readers, relay.verifiers):
        client.start()
    yield relay
    closed = [client.close() for client in (relay.writer, relay.readers, relay.verifiers)]
    children.pump(lambda: all(deferred.called for deferred in closed), "the end of all children")


def event(number: int) -> Event:
    """Return an event whose signature is wrong."""
    pubkey = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    unsigned = Event("0" * 64, pubkey, number, 1, [], "", "2" * 128)
    return msgspec.structs.replace(unsigned, id=event_id(canonical(unsigned).preimage))


def test_events_are_stored_found_and_known(relay: Relay) -> None:
    """What the writer stores, the reader finds, and the verifier knows; on a store that did not exist."""
    events = [event(number) for number in range(10)]
    stored: list[Stored | None] = []
    relay.writer.write([canonical(each).json for each in events[:9]], stored.append)
    relay.children.pump(lambda: stored, "storing")
    assert stored == [Stored([0] * 9, list(range(1, 10)))]
    assert relay.writer.is_healthy
    assert relay.everything() == [canonical(each).json for each in reversed(events[:9])]
    verdicts: list[Sequence[int] | None] = []
    relay.verifiers.verify([(each.id, each.pubkey, each.sig) for each in events], verdicts.append)
    relay.children.pump(lambda: verdicts, "verifying")
    assert list(verdicts[0] or ()) == [Verdict.KNOWN] * 9 + [Verdict.BAD_SIGNATURE]


def test_a_killed_writer(relay: Relay) -> None:
    """Every event is answered once; what was answered as stored is there, and the next writer stores what comes."""
    answers: dict[int, Stored | None] = {}

    def write(number: int) -> None:
        def done(stored: Stored | None) -> None:
            assert number not in answers
            answers[number] = stored

        relay.writer.write([canonical(event(number)).json], done)

    def answered(count: int) -> Callable[[], bool]:
        return lambda: len(answers) >= count

    for number in range(300):
        write(number)
    relay.children.pump(answered(100), "some answers")
    relay.children.kill("writer")
    for number in range(300, 400):
        write(number)
    relay.children.pump(answered(400), "all answers")
    write(1000)
    relay.children.pump(answered(401), "an answer of the next writer")
    assert answers[1000] is not None
    promised = {canonical(event(number)).json for number, stored in answers.items() if stored is not None}
    assert promised <= set(relay.everything())


def test_a_killed_reader(relay: Relay) -> None:
    """Its query ends as an error, and the next reader answers the next one."""
    stored: list[Stored | None] = []
    relay.writer.write([canonical(event(number)).json for number in range(10)], stored.append)
    relay.children.pump(lambda: stored, "storing")
    result = Result()
    relay.readers.open(EVERYTHING, result, credit=1)
    relay.children.pump(lambda: result.found, "the first row")
    relay.children.kill("reader")
    relay.children.pump(lambda: result.ended, "the end of the query")
    assert result.aborted == "error"
    relay.children.pump(lambda: relay.children.running["reader"], "the next reader")
    assert len(relay.everything()) == 10


def test_a_killed_verifier(relay: Relay) -> None:
    """Every call is answered, and the next verifier answers the next one."""
    answers: list[Sequence[int] | None] = []
    item = (event(1).id, event(1).pubkey, event(1).sig)
    for _ in range(50):
        relay.verifiers.verify([item] * 100, answers.append)
    relay.children.pump(lambda: answers, "the first verdicts")
    relay.children.kill("verifier")
    relay.children.pump(lambda: len(answers) == 50, "all verdicts")
    relay.verifiers.verify([item], answers.append)
    relay.children.pump(lambda: len(answers) == 51, "the next verdict")
    assert list(answers[-1] or ()) == [Verdict.BAD_SIGNATURE]
