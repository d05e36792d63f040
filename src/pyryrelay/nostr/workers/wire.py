"""Messages between the reactor's process and its children, and how they are framed. PURE.

A frame is a body and its length before it, 4 bytes, most significant first. A body is one message in MessagePack: an
array whose first element says which message it is. The first frame to a child is its configuration, which may come
again after a reload; the first frame from a child is `Ready`.

Each side only decodes what it must: stored events travel as bytes. Numbers identify what an answer belongs to, and are
unique for one client of this side. Ids are 32 bytes, unless they are hex digits in a `str`. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final, Literal, TypeAlias

import msgspec

from pyryrelay.nostr.filters import Filter
from pyryrelay.nostr.storage.interface import Retention
from pyryrelay.nostr.storage.visibility import View

__all__ = [
    "MAX_FRAME_BYTES",
    "Aborted",
    "Answer",
    "Arrived",
    "Call",
    "Cancel",
    "CountLimits",
    "Counted",
    "Credit",
    "Done",
    "FrameBuffer",
    "FrameError",
    "FromReader",
    "FromVerifier",
    "FromWriter",
    "Health",
    "Hint",
    "Join",
    "Open",
    "Query",
    "QueryLimits",
    "ReaderConfig",
    "Ready",
    "Removed",
    "Rows",
    "Snapshot",
    "ToReader",
    "ToVerifier",
    "ToWriter",
    "Verdict",
    "Verdicts",
    "VerifierConfig",
    "Verify",
    "Write",
    "WriterConfig",
    "Written",
    "encode",
    "frame",
]

LENGTH_BYTES: Final = 4
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""Nothing sent is nearly as long; a longer frame means that the stream is out of step."""

Hint: TypeAlias = Literal["finish", "more"] | None
"""What EOSE says about stored events that were not sent (NIP-67); None if it is not known."""
Aborted: TypeAlias = Literal["expensive", "timeout", "error"] | None
"""Why a query ended before its end; None if it did not."""

encode: Final = msgspec.msgpack.Encoder().encode
"""Return the body of a message."""


class Verdict(IntEnum):
    """What is known of a signed event whose id is right."""

    GOOD = 0
    KNOWN = 1
    """The event is stored already; its signature was not looked at again."""
    BAD_KEY = 2
    """No point of the curve has the public key as its x coordinate."""
    BAD_SIGNATURE = 3


class Ready(msgspec.Struct, array_like=True, tag="ready", frozen=True):
    """The child has opened the store. The writer tells its last number, and how many events it has.

    ``database`` is what a writer has opened that several workers share; they need it if they named a temporary one.
    """

    seq: int = 0
    events: int = 0
    database: str = ""


class WriterConfig(msgspec.Struct, array_like=True, tag="writer", frozen=True, kw_only=True):
    """What the writer works on, and what it removes by itself."""

    database: str
    is_durable: bool = True
    retention: Retention = Retention()


class Join(msgspec.Struct, array_like=True, tag="join", frozen=True):
    """Hear of everything that is stored from now on, the first frame of each worker behind the configuration.

    A worker that was connected before has heard of all events up to the number ``heard``, and gets those after it.
    """

    heard: int | None = None


class Write(msgspec.Struct, array_like=True, tag="write", frozen=True, gc=False):
    """Store canonical events, in this order, in one transaction or with others that wait.

    They weigh ``weight``, or 1 each if that is more.
    """

    number: int
    events: list[bytes]
    weight: int = 0


class Call(msgspec.Struct, array_like=True, tag="call", frozen=True):
    """Do something that a tool asks for."""

    number: int
    name: str
    arguments: dict[str, object]


class Written(msgspec.Struct, array_like=True, tag="written", frozen=True, gc=False):
    """The answer to a `Write`: an outcome and a number for each event. All are empty if nothing could be stored.

    ``seqs`` has 0 for what was not stored; ``removed`` are the ids that the whole transaction deleted; ``took_s`` and
    ``batch_events`` are the time and the number of events of that transaction. They are only in its first answer.
    """

    number: int
    outcomes: Sequence[int]
    seqs: Sequence[int]
    removed: list[bytes] = []
    took_s: float = 0.0
    batch_events: int = 0


class Answer(msgspec.Struct, array_like=True, tag="answer", frozen=True):
    """The answer to a `Call`: what it returned, or why it failed."""

    number: int
    result: object
    error: str | None = None


class Removed(msgspec.Struct, array_like=True, tag="removed", frozen=True, gc=False):
    """Events that the writer deleted by itself, or for another worker: by what that has ``written``, or by a ``tool``.

    Of several workers, one counts the events.
    """

    reason: Literal["expired", "retention", "written", "tool"]
    ids: list[bytes]
    is_counted: bool = True


class Arrived(msgspec.Struct, array_like=True, tag="arrived", frozen=True, gc=False):
    """Events that were stored for another worker, with their numbers, in the order of these."""

    events: list[bytes]
    seqs: list[int]


class Health(msgspec.Struct, array_like=True, tag="health", frozen=True):
    """Whether the store can be written; sent when that changes, with the cause."""

    is_writable: bool
    cause: str = ""


class ReaderConfig(msgspec.Struct, array_like=True, tag="reader", frozen=True, kw_only=True):
    """What a reader works on, and how long it works on one query at a stretch."""

    database: str
    slice_s: float = 0.010


class QueryLimits(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """What one query may return and cost. ``max_work`` is in work units; None is unlimited.

    A scan finds no event whose number in the store is higher than ``max_seq``.
    """

    max_limit: int
    default_limit: int
    max_results: int | None
    max_work: int | None
    max_seq: int | None = None


class CountLimits(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """Up to where a COUNT counts, and whether it also makes HyperLogLog registers."""

    max_count: int
    hll: bool


class Query(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """One REQ or COUNT. ``client`` is the key by which readers are fair; ``count`` is None for a REQ.

    ``timeout_s`` bounds the time that it waits for its turn and runs, without the time that it waits for credit.
    """

    client: str
    filters: tuple[Filter, ...]
    view: View
    limits: QueryLimits
    timeout_s: float | None
    count: CountLimits | None = None


class Open(msgspec.Struct, array_like=True, tag="open", frozen=True):
    """Start a query, which may send ``credit`` bytes of rows before it waits for more."""

    number: int
    credit: int
    query: Query


class Credit(msgspec.Struct, array_like=True, tag="credit", frozen=True, gc=False):
    """Let a query send more rows."""

    number: int
    size: int


class Cancel(msgspec.Struct, array_like=True, tag="cancel", frozen=True, gc=False):
    """End a query without more rows. `Done` confirms it, so that a reader that hangs is noticed."""

    number: int


class Snapshot(msgspec.Struct, array_like=True, tag="snapshot", frozen=True, gc=False):
    """The query has begun, and sees what was committed up to ``seq``."""

    number: int
    seq: int


class Rows(msgspec.Struct, array_like=True, tag="rows", frozen=True, gc=False):
    """Events of a query, in order, as they are stored."""

    number: int
    rows: list[bytes]


class Counted(msgspec.Struct, array_like=True, tag="counted", frozen=True, gc=False):
    """The result of a COUNT. `Done` follows."""

    number: int
    count: int
    is_approximate: bool
    hll: str | None


class Done(msgspec.Struct, array_like=True, tag="done", frozen=True, gc=False):
    """The query has ended, after ``work`` units."""

    number: int
    hint: Hint
    work: int
    aborted: Aborted


class VerifierConfig(msgspec.Struct, array_like=True, tag="verifier", frozen=True, kw_only=True):
    """Where a verifier looks for events that are stored already; nowhere if None."""

    database: str | None


class Verify(msgspec.Struct, array_like=True, tag="verify", frozen=True, gc=False):
    """Verify events, each 256 hex digits: id, public key, signature. Joined text is what costs this side least."""

    number: int
    digits: str


class Verdicts(msgspec.Struct, array_like=True, tag="verdicts", frozen=True, gc=False):
    """The answer to a `Verify`: one byte for each event, a `Verdict`; and the time that it took."""

    number: int
    verdicts: bytes
    took_s: float


ToWriter: TypeAlias = WriterConfig | Join | Write | Call
FromWriter: TypeAlias = Ready | Written | Arrived | Answer | Removed | Health
ToReader: TypeAlias = ReaderConfig | Open | Credit | Cancel
FromReader: TypeAlias = Ready | Snapshot | Rows | Counted | Done
ToVerifier: TypeAlias = VerifierConfig | Verify
FromVerifier: TypeAlias = Ready | Verdicts


class FrameError(ValueError):
    """The length of a frame is over `MAX_FRAME_BYTES`."""


def frame(body: bytes) -> bytes:
    """Return a body with its length before it."""
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class FrameBuffer:
    """The received part of a stream of frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add received bytes, and return the bodies of the frames that are whole now. Raises `FrameError`."""
        self._buffer += data
        return list(self._take_whole())

    def _take_whole(self) -> Iterator[bytes]:
        buffer, start = self._buffer, 0
        while len(buffer) - start >= LENGTH_BYTES:
            body = start + LENGTH_BYTES
            size = int.from_bytes(buffer[start:body], "big")
            if size > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {size} bytes")
            if len(buffer) < body + size:
                break
            yield bytes(memoryview(buffer)[body : body + size])
            start = body + size
        del buffer[:start]
