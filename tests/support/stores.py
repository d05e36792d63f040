"""Looking into a store from outside."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator

from tests.support.nostr_events import json_of

from pyryrelay.nostr.events import Event
from pyryrelay.nostr.storage.interface import Outcome, WritableStore, Written
from pyryrelay.nostr.storage.sqlite.store import SqliteWriter


def put(store: WritableStore, *events: Event, received_s: int = 0) -> Written:
    """Write a batch."""
    return store.write([json_of(event) for event in events], received_s=received_s)


def put_singly(store: WritableStore, events: Iterable[Event], received_s: int = 0) -> list[Outcome]:
    """Write events in batches of one."""
    return [put(store, event, received_s=received_s).outcomes[0] for event in events]


@contextlib.contextmanager
def looking_into(store: SqliteWriter) -> Iterator[sqlite3.Connection]:
    """Open the file of a store once more."""
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as database:
        yield database


def stored_ids(store: SqliteWriter) -> set[str]:
    """Return the ids of all events in a store."""
    with looking_into(store) as database:
        return {id_.hex() for (id_,) in database.execute("SELECT id FROM event")}
