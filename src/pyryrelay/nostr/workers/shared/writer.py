"""The store's writer for several workers: each is answered what it has asked, and hears what was stored for the others.

What a worker is sent is in the order of commits: the answer to its own events, or `Arrived` with those of another one.
So a worker has always heard of all events up to some number, and of none above it. If its connection is lost, or this
process is started again, it says that number when it connects, and gets what it has missed.

The store is opened for the first worker, and closed when the last one has left: at a restart without downtime, the
workers of the new relay wait until those of the old one have let go of it. Times are in seconds.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from time import monotonic, time
from typing import Final, NamedTuple

import msgspec

from pyryrelay.nostr.storage.interface import Outcome, StoreInUseError, WritableStore
from pyryrelay.nostr.storage.sqlite import store as sqlite
from pyryrelay.nostr.workers.shared.clients import Connected
from pyryrelay.nostr.workers.wire import (
    Answer,
    Arrived,
    Call,
    Health,
    Join,
    Ready,
    Removed,
    ToWriter,
    Write,
    WriterConfig,
    Written,
    encode,
)
from pyryrelay.nostr.workers.writer import Writer

__all__ = ["Opened", "SharedWriter", "open_shared_store"]

IN_USE_S: Final = 60.0
"""How long to wait until another process lets go of the store."""
RETRY_S: Final = 0.02
REPLAYED_AT_ONCE: Final = 50
MAX_REPLAYED_BYTES: Final = 32 * 1024 * 1024
"""How much of what it has missed a worker gets. One that has missed more was stopped for long."""

_decode = msgspec.msgpack.Decoder(ToWriter).decode


class Opened(NamedTuple):
    """A store, and the URL under which other processes find it."""

    store: WritableStore
    database: str


def open_shared_store(config: WriterConfig) -> Opened:
    """Open the store of a configuration, creating it if it is missing. Raises `StoreError`."""
    store = sqlite.open_writer(
        config.database, is_relaxed=not config.is_durable, progress=lambda line: sys.stderr.write(f"nostr: {line}\n")
    )
    return Opened(store, f"sqlite:{store.path}")


class _Client:
    """What is known of a worker. Its frames wait in ``waiting`` until the store is open."""

    def __init__(self) -> None:
        self.waiting: deque[WriterConfig | Join | Write | Call] = deque()
        self.config: WriterConfig | None = None
        self.has_joined = False
        self.has_left = False
        self.asked = 0
        """How many answers it waits for."""


class SharedWriter:
    """A `pyryrelay.nostr.workers.writer.Writer` for several workers. See the module's docstring."""

    def __init__(
        self,
        clients: Connected,
        open_store: Callable[[WriterConfig], Opened] = open_shared_store,
        now: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
    ) -> None:
        self._connected = clients
        self._open_store = open_store
        self._now = now
        self._wall = wall
        self._clients: dict[int, _Client] = {}
        self._store: Opened | None = None
        self._writer: Writer | None = None
        self._number = 0
        self._writes: dict[int, tuple[int, Write]] = {}
        self._calls: dict[int, tuple[int, Call]] = {}
        self._trouble: Health | None = None
        self._wanted_since_s: float | None = None
        self._next_try_s = 0.0

    # See `pyryrelay.nostr.workers.shared.clients.SharedWorker`.

    def joined(self, number: int) -> None:
        """A worker has connected, and will say what it works on."""
        self._clients[number] = _Client()

    def receive(self, number: int, body: bytes) -> None:
        """Take note of a frame."""
        message = _decode(body)
        client = self._clients[number]
        if isinstance(message, WriterConfig):
            client.config = message
        if self._writer is None:
            client.waiting.append(message)
        else:
            self._take(number, client, message, self._writer)

    def left(self, number: int) -> None:
        """Disconnect a worker once all is answered that it has asked."""
        client = self._clients.get(number)
        if client is not None:
            client.has_left = True
            self._dismiss(number, client)

    def work(self) -> None:
        """Write what waits, and do one piece of other work."""
        if self._writer is None:
            self._open_if_wanted()
        if self._writer is not None:
            self._writer.work()
            if not self._clients:
                self._close_store()

    def wait_s(self) -> float | None:
        """Return the time until other work is due."""
        if self._writer is not None:
            return self._writer.wait_s()
        return None if self._wanted_since_s is None else max(0.0, self._next_try_s - self._now())

    def close(self) -> None:
        """Close the store."""
        self._close_store()

    # The store

    def _open_if_wanted(self) -> None:
        """Open the store for the first worker, unless another process still has it. Raises `StoreError`."""
        configs = [client.config for client in self._clients.values() if client.config is not None]
        now = self._now()
        if not configs:
            self._wanted_since_s = None
            return
        if self._wanted_since_s is None:
            self._wanted_since_s = now
        elif now < self._next_try_s:
            return
        try:
            self._store = self._open_store(configs[0])
        except StoreInUseError:
            if now - self._wanted_since_s >= IN_USE_S:
                raise
            self._next_try_s = now + RETRY_S
            return
        self._wanted_since_s = None
        self._writer = writer = Writer(self._store.store, configs[0], self._route, self._now, self._wall)
        for number, client in list(self._clients.items()):
            while client.waiting:
                self._take(number, client, client.waiting.popleft(), writer)

    def _close_store(self) -> None:
        writer, self._writer, self._store, self._trouble = self._writer, None, None, None
        if writer is not None:
            writer.close()

    # From workers

    def _take(self, number: int, client: _Client, message: ToWriter, writer: Writer) -> None:
        match message:
            case Write():
                writer.take(Write(self._asked(client), message.events, message.weight))
                self._writes[self._number] = (number, message)
            case Call():
                writer.take(Call(self._asked(client), message.name, message.arguments))
                self._calls[self._number] = (number, message)
            case Join(heard):
                self._join(number, client, heard)
            case WriterConfig():
                writer.take(message)

    def _asked(self, client: _Client) -> int:
        client.asked += 1
        self._number += 1
        return self._number

    def _join(self, number: int, client: _Client, heard: int | None) -> None:
        """Let a worker hear of everything from now on, after what it has missed."""
        if self._store is None:
            return
        store, database = self._store
        if heard is not None:
            self._replay(number, store, heard)
        statistics = store.statistics()
        self._send(number, Ready(statistics.last_seq, sum(statistics.events.values()), database))
        if self._trouble is not None:
            self._send(number, self._trouble)
        client.has_joined = True

    def _replay(self, number: int, store: WritableStore, heard: int) -> None:
        size = 0
        while rows := store.since(heard, REPLAYED_AT_ONCE):
            self._send(number, Arrived([json for _, json in rows], [seq for seq, _ in rows]))
            heard = rows[-1][0]
            size += sum(len(json) for _, json in rows)
            if size > MAX_REPLAYED_BYTES:
                sys.stderr.write("nostr writer: a worker was away for too long to get all events that it has missed\n")
                return

    def _dismiss(self, number: int, client: _Client) -> None:
        is_waiting = client.asked or any(isinstance(one, Write | Call) for one in client.waiting)
        if client.has_left and not is_waiting:
            del self._clients[number]
            self._connected.close(number)

    # To workers

    def _route(self, message: object) -> None:
        """Send what the writer says to those whom it concerns."""
        match message:
            case Written():
                self._written(message)
            case Answer():
                self._answered(message)
            case Removed(reason, ids):
                others = self._joined()
                self._send_all(others[:1], message)
                self._send_all(others[1:], Removed(reason, ids, is_counted=False))
            case Health(is_writable, _):
                self._trouble = None if is_writable else message
                self._send_all(self._joined(), message)

    def _written(self, written: Written) -> None:
        number, write = self._writes.pop(written.number)
        others = [other for other in self._joined() if other != number]
        if written.removed:
            self._send_all(others, Removed("written", written.removed, is_counted=False))
        fresh = [
            (event, seq)
            for event, outcome, seq in zip(write.events, written.outcomes, written.seqs, strict=False)
            if outcome == Outcome.STORED and seq
        ]
        if fresh:
            self._send_all(others, Arrived([event for event, _ in fresh], [seq for _, seq in fresh]))
        outcomes, seqs = written.outcomes, written.seqs
        answer = Written(write.number, outcomes, seqs, written.removed, written.took_s, written.batch_events)
        self._answer(number, answer)

    def _answered(self, answer: Answer) -> None:
        number, call = self._calls.pop(answer.number)
        if call.name == "delete" and isinstance(answer.result, list) and answer.result:
            others = [other for other in self._joined() if other != number]
            self._send_all(others, Removed("tool", answer.result, is_counted=False))
        self._answer(number, Answer(call.number, answer.result, answer.error))

    def _answer(self, number: int, message: object) -> None:
        client = self._clients.get(number)
        if client is not None:
            client.asked -= 1
            self._send(number, message)
            self._dismiss(number, client)

    def _joined(self) -> list[int]:
        return [number for number, client in self._clients.items() if client.has_joined]

    def _send(self, number: int, message: object) -> None:
        self._connected.send(number, encode(message))

    def _send_all(self, numbers: list[int], message: object) -> None:
        if numbers:
            body = encode(message)
            for number in numbers:
                self._connected.send(number, body)
