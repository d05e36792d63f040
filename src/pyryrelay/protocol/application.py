"""What the transport asks of a protocol, and what it offers for each connection.

Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred

from pyryrelay.protocol.requests import HttpAnswer, HttpRefusal, HttpRequest, Message, Request


@dataclass(frozen=True, slots=True)
class PeerPolicy:
    """What the transport does if a peer does not read what it is sent.

    If the outbox exceeds ``outbox_bytes``, where each frame counts ``frame_overhead_bytes`` more than its size, the
    peer is closed with 1011 ``outbox_reason``. The number of frames is not limited as such, because a burst consists of
    many small ones. A peer that takes nothing for ``stall_timeout_s`` although data waits for it is closed with 1011
    ``stall_reason``. None means unlimited: then the application bounds the outbox itself, by pausing its sources.
    """

    outbox_bytes: int | None = None
    frame_overhead_bytes: int = 0
    outbox_reason: str = "backlog full"
    stall_timeout_s: float | None = None
    stall_reason: str = "write stalled"


class Peer(Protocol):
    """One open connection, as an application sees it."""

    on_drain: Callable[[], None] | None
    """Called when the outbox is empty again: the operating system has taken everything."""
    on_source_drain: Callable[[Hashable], None] | None
    """Called with a source when none of its messages wait in the outbox any more."""

    @property
    def buffered_bytes(self) -> int:
        """Number of bytes in the outbox; 0 while the peer keeps up."""

    def waiting_bytes(self, source: Hashable) -> int:
        """Return the number of bytes of one source in the outbox that messages of other sources may still overtake."""

    def send(
        self,
        batch: Sequence[bytes],
        *,
        binary: bool = False,
        before: bytes = b"",
        after: bytes = b"",
        source: Hashable = None,
    ) -> None:
        """Send whole messages, as text unless ``binary``. Does nothing once the peer is closing.

        Each message is ``before``, a payload of the batch and ``after``, joined without another copy. Messages of one
        ``source`` stay in order. While the peer does not keep up, sources take turns, so that a source that sends a lot
        does not delay the others.
        """

    def close(self, code: int, reason: str = "") -> None:
        """Deliver what was sent before, then close with a code that RFC 6455 section 7.4 allows in a close frame."""

    def pause(self) -> None:
        """Stop reading from the peer. Messages of the current chunk are still delivered.

        If the peer resets the connection meanwhile, `Session.closed` is called about a second later. If it leaves in
        order, what it sent before waits for `resume`, but for 30 s at most.
        """

    def resume(self) -> None:
        """Read from the peer again."""

    def ping(self, answered: Callable[[], None]) -> None:
        """Send a ping, and call ``answered`` if its pong arrives."""


class Session(Protocol):
    """The state that an application keeps for one open connection."""

    def messages(self, batch: Sequence[Message]) -> Deferred[None] | None:
        """Process all whole messages of one chunk, in order.

        If this returns a Deferred, the peer is not read from, and `messages` is not called again, until it fires. This
        is how slow storage applies backpressure. If it fails, the peer is closed with 1011 and the failure is logged
        with its traceback. The peer's close frame, and what breaks the protocol, waits behind the batch as well; but
        `closed` may be called before the Deferred fires, if the connection ends otherwise. It is not cancelled then.
        """

    def closed(self, code: int, reason: str) -> None:
        """Report that the connection is closing or lost. Called exactly once.

        The code is that of the first close frame: the peer's, which may have any number, or 1005 if it has none; or the
        relay's. It is 1006 if there was no close frame.
        """


class Application(Protocol):
    """What a protocol mounts on its paths."""

    @property
    def name(self) -> str:
        """The name of the route: a fixed word for logs, metrics and caps."""

    @property
    def policy(self) -> PeerPolicy:
        """What the transport does with slow peers."""

    def gate_headers(self, request: Request) -> HttpRefusal | None:
        """Return a refusal if the headers of an upgrade are not acceptable. Pure; called before the upgrade."""

    def place_key(self, request: Request) -> str | None:
        """Return what decides which process serves an upgrade that `gate_headers` has let pass.

        Connections with the same key are served by one process of the relay, wherever they were accepted. None means
        that any process will do. Pure, and asked only if the relay has several processes.
        """

    def http(self, request: HttpRequest) -> HttpAnswer | Deferred[HttpAnswer]:
        """Answer a plain HTTP request for one of the paths, whatever its method.

        It has been charged to ``--http-quota``. Its body is not read. Answer ``HEAD`` like ``GET``: the transport
        leaves the body out. A Deferred is cancelled if the connection is lost, and after 10 s, when the peer is
        answered with 503. A failure is answered with 500, and `RepeatedHeaderError` with 400. What is answered with an
        `HttpRefusal` counts towards the jail, and a `Page` of any status does not.
        """

    def opened(self, peer: Peer, request: Request) -> Session:
        """Return the session of a peer whose upgrade is complete. May already close the peer."""
