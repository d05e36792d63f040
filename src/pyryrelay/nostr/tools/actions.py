"""The relay's side of the command ``pyryrelay nostr``: actions of its admin API.

Bodies and answers are JSON; that of ``import`` is JSON lines. The operator is trusted: signatures were verified by the
command, quotas and lists do not hold. What is stored is delivered like everything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from pyryrelay.nostr.events import Event, EventError, canonical, parse_event, weight_of
from pyryrelay.nostr.options.options import NostrOptions
from pyryrelay.nostr.storage.interface import Outcome
from pyryrelay.nostr.tools.checking import BAD_EVENT, refusal_of
from pyryrelay.nostr.tools.stores import OUTCOMES
from pyryrelay.nostr.workers.store_writer import Done, Stored, WriterError, pieces
from pyryrelay.protocol import Action, ActionError

__all__ = ["Actions", "Live", "Writer"]

NOT_STARTED: Final = "the relay has no store yet: try again in a moment"


class Live(Protocol):
    """The running relay, as far as the actions need it."""

    @property
    def options(self) -> NostrOptions:
        """The options in force."""

    def imported(self, events: Sequence[tuple[Event, bytes, int]]) -> None:
        """Deliver events that an operator has stored, given with their JSON and number."""

    def removed(self, reason: str, ids: Sequence[bytes]) -> None:
        """Forget events that were deleted."""


class Writer(Protocol):
    """The store's writer: a `pyryrelay.nostr.workers.store_writer.StoreWriter`."""

    def write(self, events: Sequence[bytes], done: Done, weight: int | None = None) -> None:
        """Store canonical events."""

    def call(self, name: str, arguments: dict[str, object] | None = None) -> Deferred[object]:
        """Have something else done."""


class _Deletion(msgspec.Struct):
    """The body of ``delete``."""

    ids: list[str]
    forever: bool


class Actions:
    """What an operator can do to the store.

    ``writer`` returns None before the relay has started, ``database`` the URL under which its processes know the store,
    and ``waiting`` how many events wait to be announced to other hosts, None if this process announces none.
    """

    def __init__(
        self,
        live: Live,
        writer: Callable[[], Writer | None],
        database: Callable[[], str],
        wall_s: Callable[[], int],
        waiting: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._live = live
        self._writer = writer
        self._database = database
        self._wall_s = wall_s
        self._waiting = waiting

    def all(self) -> Mapping[str, Action]:
        """Return them by name."""
        return {
            "import": self._import,
            "delete": self._delete,
            "stats": self._stats,
            "compact": self._compact,
            "store": self._store,
            "lists": self._lists,
        }

    def _store(self, body: bytes) -> bytes:
        """Tell where the events are, for commands that read them on their own."""
        return msgspec.json.encode({"database": self._database()})

    # Import

    def _import(self, body: bytes) -> Deferred[bytes]:
        writer = self._running()
        counts: Counter[str] = Counter()
        entries: list[tuple[Event, bytes]] = []
        wall_s = self._wall_s()
        for line in body.splitlines():
            try:
                event = parse_event(line)
            except EventError:
                counts[BAD_EVENT] += 1
                continue
            texts = canonical(event)
            reason = refusal_of(event, texts, wall_s)
            if reason is None:
                entries.append((event, texts.json))
            else:
                counts[reason] += 1
        batches = [entries[piece] for piece in pieces([weight_of(event) for event, _ in entries])]
        answers = [self._write(writer, batch, counts) for batch in batches]
        return DeferredList(answers).addCallback(lambda _: msgspec.json.encode(counts))

    def _write(self, writer: Writer, batch: Sequence[tuple[Event, bytes]], counts: Counter[str]) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def written(stored: Stored | None) -> None:
            outcomes, seqs = stored or ([Outcome.FAILED] * len(batch), [0] * len(batch))
            counts.update(OUTCOMES[outcome] for outcome in outcomes)
            fresh = [(event, json, seq) for (event, json), seq in zip(batch, seqs, strict=True) if seq]
            if fresh:
                self._live.imported(fresh)
            done.callback(None)

        writer.write([json for _, json in batch], written, sum(weight_of(event) for event, _ in batch))
        return done

    # Deletion

    def _delete(self, body: bytes) -> Deferred[bytes]:
        try:
            deletion = msgspec.json.decode(body, type=_Deletion)
            ids = [bytes.fromhex(one) for one in deletion.ids]
        except (msgspec.DecodeError, ValueError):
            raise ActionError('the body must be {"ids": [hex digits], "forever": true or false}') from None
        call = self._running().call("delete", {"ids": ids, "forever": deletion.forever})
        return _reported(call).addCallback(self._deleted)

    def _deleted(self, ids: object) -> bytes:
        gone = msgspec.convert(ids, list[bytes])
        if gone:
            self._live.removed("tool", gone)
        return msgspec.json.encode({"deleted": len(gone)})

    # Care

    def _stats(self, body: bytes) -> Deferred[bytes]:
        return _reported(self._running().call("statistics")).addCallback(self._told)

    def _told(self, statistics: object) -> bytes:
        figures, waiting = msgspec.convert(statistics, dict[str, object]), self._waiting()
        return msgspec.json.encode(figures if waiting is None else figures | {"events_to_announce": waiting})

    def _compact(self, body: bytes) -> Deferred[bytes]:
        return _reported(self._running().call("compact")).addCallback(lambda _: b"{}")

    def _lists(self, body: bytes) -> bytes:
        options = self._live.options
        lists: dict[str, Sequence[object]] = {
            "nostr-allow-pubkey": sorted(options.nostr_allow_pubkey),
            "nostr-deny-pubkey": sorted(options.nostr_deny_pubkey),
            "nostr-allow-kind": sorted(options.nostr_allow_kind),
            "nostr-deny-kind": sorted(options.nostr_deny_kind),
            "nostr-deny-word": sorted(options.nostr_deny_word),
            "nostr-deny-event": sorted(options.nostr_deny_event),
            "nostr-deny-address": sorted(options.nostr_deny_address),
            "nostr-trusted": sorted(options.nostr_trusted),
        }
        rows = [
            {"list": name, "entry": entry, "origin": "configuration"}
            for name, entries in lists.items()
            for entry in entries
        ]
        return msgspec.json.encode(rows)

    def _running(self) -> Writer:
        writer = self._writer()
        if writer is None:
            raise ActionError(NOT_STARTED)
        return writer


def _reported(call: Deferred[object]) -> Deferred[object]:
    """Have a call fail with what the operator is told."""

    def told(failure: Failure) -> Failure:
        failure.trap(WriterError)
        raise ActionError(str(failure.value))

    return call.addErrback(told)
