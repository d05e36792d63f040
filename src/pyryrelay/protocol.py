"""The seam between ``wire`` (connections) and a protocol (pyry today, others later).

A protocol is an `Application`. ``service`` mounts it on paths; ``wire`` asks it, in this order and nothing else:
`Application.gate_headers` before the upgrade, `Application.opened` when the upgrade is complete, then
`Session.messages` and, exactly once, `Session.closed`. In return the application holds a `Peer`, and knows nothing
else about the connection.

Messages travel in batches: all whole messages of one received chunk at once, so that a protocol can write once per
sink. One message is a batch of one. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from pyryrelay.guard import ClientAddress

Message: TypeAlias = tuple[bytes, bool]
"""One whole WebSocket message: its payload, and whether it was a binary one. Text is valid UTF-8 already."""


REFUSAL_WORDS = (
    "bad_handshake",
    "bad_head",
    "bad_method",
    "bad_proxy_header",
    "bad_server_id",
    "draining",
    "head_too_large",
    "internal_error",
    "missing_header",
    "no_request",
    "no_upgrade",
    "repeated_header",
    "slow_head",
    "unfinished_head",
    "unknown_path",
    "untrusted_proxy",
)
"""Why a request is refused, beyond the reasons of the guard. Fixed words, for logs and metrics."""

NEVER_ANSWERED = frozenset(
    {"bad_proxy_header", "no_request", "tls_prefix_rate_limit", "tls_rate_limit", "unfinished_head", "untrusted_proxy"}
)
"""Those of both that speak no HTTP: the connection is dropped."""


class Request(NamedTuple):
    """The part of a validated upgrade request that an application may see.

    ``headers`` maps lower-case names to their values in order of appearance, decoded as ISO 8859-1.
    """

    path: str
    headers: Mapping[str, Sequence[str]]
    client: ClientAddress

    def header(self, name: str) -> str:
        """The only value of a header; empty where it is missing.

        Raises `RepeatedHeaderError` where it was sent more than once: choosing one of them would let two parsers
        disagree about who the sender is.
        """
        values = self.headers.get(name, ())
        if len(values) > 1:
            raise RepeatedHeaderError(name)
        return values[0] if values else ""


class RepeatedHeaderError(ValueError):
    """A header that must be unique was sent more than once. Carries the name only, never a value."""


@dataclass(frozen=True, slots=True)
class HttpRefusal:
    """A plain HTTP answer instead of an upgrade: status code, and a fixed word for logs and metrics."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Page:
    """A plain HTTP answer that is no refusal, such as `/healthz`: status code, header fields, body."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class PeerPolicy:
    """What ``wire`` does when a peer does not read what it is sent.

    An outbox over ``outbox_bytes``, to which each frame adds ``frame_overhead_bytes``, closes the peer with 1011
    ``outbox_reason``. The number of frames has no bound of its own: many small ones are what a burst looks like. A peer
    that takes nothing for ``stall_timeout_s`` although something waits for it is closed with 1011 ``stall_reason``.
    None means unlimited: then the application bounds the buffer itself, by pausing its sources.
    """

    outbox_bytes: int | None = None
    frame_overhead_bytes: int = 0
    outbox_reason: str = "backlog full"
    stall_timeout_s: float | None = None
    stall_reason: str = "write stalled"


class Peer(Protocol):
    """One open connection, as an application sees it."""

    on_drain: Callable[[], None] | None
    """Called when everything that `send` had to buffer has been handed to the operating system."""
    on_source_drain: Callable[[Hashable], None] | None
    """Called when nothing waits any more of a source of which something had to."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes that were sent to the peer and still wait in this process; 0 while it keeps up."""

    def waiting_bytes(self, source: Hashable) -> int:
        """Those of one source that can still be overtaken by what others send."""

    def send(
        self,
        batch: Sequence[bytes],
        *,
        binary: bool = False,
        before: bytes = b"",
        after: bytes = b"",
        source: Hashable = None,
    ) -> None:
        """Send whole messages, as text unless ``binary``. Silently nothing once the peer is closing.

        Each message is ``before``, a payload of the batch and ``after``, put together without a copy of their own.
        Messages of one ``source`` stay in order. While the peer does not keep up, sources have their turn, so that one
        that sends much costs the others nothing.
        """

    def close(self, code: int, reason: str = "") -> None:
        """Deliver what was sent before, then close with a code that RFC 6455 section 7.4 allows on the wire."""

    def pause(self) -> None:
        """Stop reading from the peer. What the current chunk holds is still delivered."""

    def resume(self) -> None:
        """Read again."""

    def ping(self, answered: Callable[[], None]) -> None:
        """Send a ping; ``answered`` is called when the pong arrives, and never if it does not."""


class Session(Protocol):
    """What an application keeps for one open connection."""

    def messages(self, batch: Sequence[Message]) -> None:
        """All whole messages of one chunk, in order."""

    def closed(self, code: int, reason: str) -> None:
        """The connection is gone or going. Called exactly once.

        The code is that of the close frame that came first, the peer's (any number that it wrote, 1005 without one) or
        ours, and 1006 where there was none.
        """


class Application(Protocol):
    """A protocol that can be mounted on paths."""

    @property
    def name(self) -> str:
        """A fixed word for logs and metrics."""

    @property
    def policy(self) -> PeerPolicy:
        """How its slow peers are treated."""

    def gate_headers(self, request: Request) -> HttpRefusal | None:
        """Pure, before the upgrade: may these headers come in?"""

    def opened(self, peer: Peer, request: Request) -> Session:
        """The upgrade is complete. May already close the peer."""
