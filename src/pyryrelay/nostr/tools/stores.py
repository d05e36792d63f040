"""Where the command's changes go: to the writer of a running relay, or into a store that it opens itself.

Both raise `CommandError` of one line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from time import time
from typing import Any, Final, Protocol

from pyryrelay.cli.protocol_commands import CommandError, NotRunningError, Relay
from pyryrelay.nostr.storage.interface import Outcome, StoreError
from pyryrelay.nostr.storage.sqlite.store import SqliteWriter, open_writer

__all__ = ["OUTCOMES", "Store", "database_of", "open_store", "store_errors"]

PROTOCOL: Final = "nostr"
LONG_S: Final = 24 * 3600.0
"""How long the relay may take for what has no bound, such as to compact a large database."""
WRITE_S: Final = 120.0
MAX_EVENTS: Final = 1_000
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
MAX_IDS: Final = 5_000

OUTCOMES: Final[Mapping[int, str]] = {
    Outcome.STORED: "accepted",
    Outcome.DUPLICATE: "duplicate",
    Outcome.SUPERSEDED: "superseded",
    Outcome.DELETED: "deleted",
    Outcome.FAILED: "store",
}
"""What the tools call the outcomes of a store."""


class Store(Protocol):
    """A store that can be changed."""

    def write(self, events: Sequence[bytes]) -> Counter[str]:
        """Store canonical events, and count what became of them, by the words of `OUTCOMES`."""

    def delete(self, ids: Sequence[str], *, forever: bool) -> int:
        """Delete the events with these ids, and return how many were there."""

    def statistics(self) -> dict[str, Any]:
        """Return figures; see `pyryrelay.nostr.storage.interface.Statistics`."""

    def compact(self) -> None:
        """Give unused space back to the file system."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise what the store raises as `CommandError`."""
    try:
        yield
    except StoreError as error:
        raise CommandError(str(error)) from None


class RunningStore:
    """The store of a running relay."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def write(self, events: Sequence[bytes]) -> Counter[str]:
        """Have the relay store events, and deliver them."""
        outcomes: Counter[str] = Counter()
        for body in _bodies(events):
            outcomes.update(self._relay.act(PROTOCOL, "import", body, WRITE_S))
        return outcomes

    def delete(self, ids: Sequence[str], *, forever: bool) -> int:
        """Have the relay delete events."""
        number = 0
        for start in range(0, len(ids), MAX_IDS):
            body = {"ids": list(ids[start : start + MAX_IDS]), "forever": forever}
            number += self._relay.act(PROTOCOL, "delete", json.dumps(body).encode(), WRITE_S)["deleted"]
        return number

    def statistics(self) -> dict[str, Any]:
        """Ask the relay."""
        return dict(self._relay.act(PROTOCOL, "stats", timeout_s=WRITE_S))

    def compact(self) -> None:
        """Have the relay do it, which stores nothing meanwhile."""
        self._relay.act(PROTOCOL, "compact", timeout_s=LONG_S)


class OpenedStore:
    """A store of which this process is the writer."""

    def __init__(self, store: SqliteWriter) -> None:
        self._store = store

    def write(self, events: Sequence[bytes]) -> Counter[str]:
        """Store events in one transaction."""
        with store_errors():
            written = self._store.write(events, received_s=int(time()))
        return Counter(OUTCOMES[outcome] for outcome in written.outcomes)

    def delete(self, ids: Sequence[str], *, forever: bool) -> int:
        """Delete events in pieces."""
        number = 0
        for start in range(0, len(ids), MAX_IDS):
            with store_errors():
                piece = [bytes.fromhex(one) for one in ids[start : start + MAX_IDS]]
                number += len(self._store.delete(piece, forever=forever))
        return number

    def statistics(self) -> dict[str, Any]:
        """Count what is stored."""
        with store_errors():
            return asdict(self._store.statistics())

    def compact(self) -> None:
        """Shrink the database."""
        with store_errors():
            self._store.compact()


@contextmanager
def open_store(relay: Relay, url: str | None) -> Iterator[Store]:
    """Return the store of a URL, or that of the running relay if there is none."""
    if url is None:
        database_of(relay, None)
        yield RunningStore(relay)
        return
    with store_errors():
        store = open_writer(url)
    try:
        yield OpenedStore(store)
    finally:
        store.close()


def database_of(relay: Relay, url: str | None) -> str:
    """Return the URL of the database: the one given, or that of the running relay."""
    if url is not None:
        return url
    try:
        return str(relay.act(PROTOCOL, "store")["database"])
    except NotRunningError as error:
        raise CommandError(f"{error}; or say which database to open: --database sqlite:PATH") from None


def _bodies(events: Sequence[bytes]) -> Iterator[bytes]:
    """Yield events as lines, in bodies that the relay takes."""
    lines: list[bytes] = []
    size = 0
    for event in events:
        if lines and (len(lines) >= MAX_EVENTS or size + len(event) > MAX_BODY_BYTES):
            yield b"\n".join(lines)
            lines, size = [], 0
        lines.append(event)
        size += len(event) + 1
    if lines:
        yield b"\n".join(lines)
