"""The seam between the transport and a protocol: what each may ask of the other.

A protocol brings a `ProtocolKind`, which `pyryrelay.mounts` lists and ``service`` builds. What it builds mounts an
`Application` on each of its paths. The transport asks an application, in this order and nothing else:
`Application.gate_headers` before the upgrade, `Application.opened` when the upgrade is complete, then
`Session.messages` and, exactly once, `Session.closed`; and `Application.http` for a request that asks for no upgrade.
In return the application holds a `Peer`, and knows nothing else about the connection.

Messages travel in batches: all whole messages of one received chunk at once, so that a protocol can write once per
sink. One message is a batch of one. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred

from pyryrelay.guard import ClientAddress
from pyryrelay.protocol_options import ProtocolOptions

Message: TypeAlias = tuple[bytes, bool]
"""One whole WebSocket message: its payload, and whether it was a binary one. Text is valid UTF-8 already."""

Fields: TypeAlias = Sequence[tuple[str, str]]
"""Header fields of an answer, as name and value."""


Headers: TypeAlias = Mapping[str, Sequence[str]]
"""Lower-case names, each with its values in order of appearance, decoded as ISO 8859-1."""


class Request(NamedTuple):
    """The part of a validated upgrade request that an application may see."""

    path: str
    headers: Headers
    client: ClientAddress

    def header(self, name: str) -> str:
        """Return the only value of a header; empty where it is missing. Raises `RepeatedHeaderError`."""
        return only_value(self.headers, name)


class HttpRequest(NamedTuple):
    """The part of a validated request for no upgrade that an application may see.

    ``client`` is None where it cannot be told, as for peers of a UNIX socket.
    """

    method: str
    path: str
    headers: Headers
    client: ClientAddress | None


def only_value(headers: Headers, name: str) -> str:
    """Return the only value of a header; empty where it is missing.

    Raises `RepeatedHeaderError` where it was sent more than once: choosing one of them would let two parsers disagree
    about who the sender is.
    """
    values = headers.get(name, ())
    if len(values) > 1:
        raise RepeatedHeaderError(name)
    return values[0] if values else ""


class RepeatedHeaderError(ValueError):
    """A header that must be unique was sent more than once. Carries the name only, never a value."""


@dataclass(frozen=True, slots=True)
class HttpRefusal:
    """A refusal in plain HTTP: status code, a fixed word for logs and metrics, and header fields beyond the usual."""

    status: int
    reason: str
    fields: Fields = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A plain HTTP answer that is no refusal, such as `/healthz`: status code, header fields, body."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


HttpAnswer: TypeAlias = Page | HttpRefusal
"""How an application answers a request that asks for no upgrade."""


@dataclass(frozen=True, slots=True)
class PeerPolicy:
    """What the transport does when a peer does not read what it is sent.

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
        Messages of one ``source`` stay in order. While the peer does not keep up, sources take turns, so that one
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

    def messages(self, batch: Sequence[Message]) -> Deferred[None] | None:
        """Take all whole messages of one chunk, in order.

        With a Deferred the peer is not read from, and `messages` is not called again, until it fires; if it fails, the
        peer is closed with 1011 and the failure is logged with its traceback. This is how storage pushes back. `closed`
        may be called before it fires; it is not cancelled then.
        """

    def closed(self, code: int, reason: str) -> None:
        """The connection is gone or going. Called exactly once.

        The code is that of the close frame that came first, the peer's (any number that it wrote, 1005 without one) or
        ours, and 1006 where there was none.
        """


class Application(Protocol):
    """What is mounted on the paths of a protocol."""

    @property
    def name(self) -> str:
        """A fixed word for logs, metrics and caps: the route."""

    @property
    def policy(self) -> PeerPolicy:
        """How slow peers are treated."""

    def gate_headers(self, request: Request) -> HttpRefusal | None:
        """Say what is wrong with the headers of an upgrade. Pure, and called before the upgrade."""

    def http(self, request: HttpRequest) -> HttpAnswer | Deferred[HttpAnswer]:
        """Answer a request on one of the paths that asks for no upgrade, whatever its method.

        It has been paid from ``--http-quota``. Bodies are not read. ``HEAD`` is answered as ``GET`` would be, and the
        transport leaves the body out. A Deferred is cancelled if the peer leaves. It is also cancelled after 10 s, and
        the peer gets a 503. A failure is a 500, and `RepeatedHeaderError` a 400.
        """

    def opened(self, peer: Peer, request: Request) -> Session:
        """The upgrade is complete. May already close the peer."""


# What a protocol brings


class Cancellable(Protocol):
    """A delayed call."""

    def cancel(self) -> None:
        """Do not make it."""


class LineWriter(Protocol):
    """The log, as a protocol writes to it."""

    def tell(self, line: Callable[[], None]) -> None:
        """Have a line written at the end of the turn, with all others: ``line`` is what writes it.

        It calls a module's ``_log`` with a literal format and fields that `ProtocolOptions.log_fields` allows.
        """

    def note(self, key: Hashable, count: int = 1) -> int | None:
        """Note ``count`` events of which only some get a line.

        Return how many events of ``key`` such a line leaves out, itself aside, or None if there is to be no line.
        """

    def address(self, client: ClientAddress | None) -> str:
        """Return a client address in the form that the operator chose."""


@dataclass(frozen=True, slots=True)
class Services:
    """What a protocol is built with. ``now`` is the monotonic clock, and ``call_later`` follows it.

    ``in_thread`` makes a call in the reactor's thread pool. ``refused`` tells how many upgrades and requests were
    refused since the start, by route (None off every path) and reason.
    """

    now: Callable[[], float]
    call_later: Callable[[float, Callable[[], None]], Cancellable]
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    log: LineWriter
    refused: Callable[[], Mapping[tuple[str | None, str], int]]


OptionsT = TypeVar("OptionsT", contravariant=True)


class RunningProtocol(Protocol[OptionsT]):
    """A protocol of one running relay."""

    @property
    def routes(self) -> Mapping[str, Application]:
        """The application for each path. Several paths may share one."""

    def configure(self, options: OptionsT) -> None:
        """Enforce these options from now on; called at the start and at every reload."""

    def collectors(self) -> Iterable[Collector]:
        """What ``/metrics`` shows of it. Every label value exists from the first scrape."""

    def health(self) -> Mapping[str, object]:
        """Its keys of ``/healthz``."""

    def stop(self) -> None:
        """All connections are gone: leave no timer behind."""


class ProtocolKind(ProtocolOptions, Protocol):
    """A protocol, before anything runs: what `pyryrelay.mounts` lists."""

    def build(self, options: Any, services: Services) -> RunningProtocol[Any]:
        """Return a protocol that is ready to be mounted."""
