"""The interface between the transport and a protocol: what each may ask of the other.

A protocol brings a `ProtocolKind`, which `pyryrelay.mounts` lists and ``service`` builds. What it builds mounts an
`Application` on each of its paths. The transport asks an application, in this order and nothing else:
`Application.gate_headers` before the upgrade, `Application.opened` when the upgrade is complete, then
`Session.messages` and, exactly once, `Session.closed`; and `Application.http` for a request that asks for no upgrade.
In return the application holds a `Peer`, and knows nothing else about the connection.

Messages travel in batches: all whole messages of one received chunk at once, so that a protocol can write once per
peer. One message is a batch of one. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred

from pyryrelay.broadcast import Broadcast
from pyryrelay.guard import ClientAddress, ClusterBuckets
from pyryrelay.protocol_options import ProtocolOptions

if TYPE_CHECKING:
    from twisted.web.iweb import IAgent

Message: TypeAlias = tuple[bytes, bool]
"""A whole WebSocket message: its payload, and whether it is a binary message. Text is known to be valid UTF-8."""

Fields: TypeAlias = Sequence[tuple[str, str]]
"""Header fields of an answer, as name and value."""

Headers: TypeAlias = Mapping[str, Sequence[str]]
"""Header fields of a request: lower-case names, each with its values in order, decoded as ISO 8859-1."""


class Request(NamedTuple):
    """The part of a validated upgrade request that an application may see."""

    path: str
    headers: Headers
    client: ClientAddress

    def header(self, name: str) -> str:
        """Return the only value of a header, "" if it is missing. Raises `RepeatedHeaderError`."""
        return only_value(self.headers, name)


class HttpRequest(NamedTuple):
    """The part of a validated plain HTTP request that an application may see.

    ``client`` is None if it is unknown, as for peers of a UNIX socket.
    """

    method: str
    path: str
    headers: Headers
    client: ClientAddress | None


def only_value(headers: Headers, name: str) -> str:
    """Return the only value of a header, "" if it is missing.

    Raises `RepeatedHeaderError` if it was sent more than once: two parsers that choose different ones would disagree
    about the identity of the sender.
    """
    values = headers.get(name, ())
    if len(values) > 1:
        raise RepeatedHeaderError(name)
    return values[0] if values else ""


class RepeatedHeaderError(ValueError):
    """A header that must be unique was sent more than once. The error has its name, never a value."""


@dataclass(frozen=True, slots=True)
class HttpRefusal:
    """A refusal in plain HTTP: status code, a fixed word for logs and metrics, and additional header fields."""

    status: int
    reason: str
    fields: Fields = ()


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP answer that is not a refusal, such as that of `/healthz`: status code, header fields, body."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


HttpAnswer: TypeAlias = Page | HttpRefusal
"""The answer of an application to a plain HTTP request."""


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


# What a protocol brings


class Cancellable(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Cancel the call."""


class LineWriter(Protocol):
    """The log, as protocols use it."""

    def write(self, line: Callable[[], None]) -> None:
        """Write a line at the end of the reactor's turn, together with all others.

        ``line`` calls a module's ``_log`` with a literal format, and with fields that `ProtocolOptions.log_fields`
        allows.
        """

    def note(self, key: Hashable, count: int = 1) -> int | None:
        """Record ``count`` events of which only some get a line.

        Returns how many other events of ``key`` a line about one of them leaves out, or None if there is to be no line.
        """

    def address(self, client: ClientAddress | None) -> str:
        """Return a client address in the form that the operator chose."""


class Child(Protocol):
    """A child process, which exchanges frames with the relay; see `Services.start_child`."""

    @property
    def pid(self) -> int | None:
        """The number of the process; None if it could not be started."""

    def send(self, body: bytes) -> None:
        """Send one frame. Does nothing once the child has ended, or was closed. What waits is not bounded."""

    def close(self) -> None:
        """Let the child end when it has read what was sent before. What it answers is still received."""

    def kill(self) -> None:
        """End the child at once, whatever it does."""


class ChildStarter(Protocol):
    """Starts child processes."""

    def __call__(
        self, arguments: Sequence[str], received: Callable[[bytes], None], ended: Callable[[str], None]
    ) -> Child:
        """Start this Python interpreter with ``arguments``, such as ``-m`` and the name of a module.

        The child's descriptor 0 is a socket, on which both sides send frames: the length in 4 bytes, big-endian, and
        the body. The child must end at the end of what it reads. ``received`` is called with the body of each frame,
        and then ``ended`` exactly once, never before this returns, with what became of the process, for the log. What
        the child writes to standard error is logged. It has no other descriptors of the relay, its working directory
        and its user, and the signals that end or reload the relay are blocked in it. Call this in or after
        `RunningProtocol.start`.
        """


def _tell_nobody(key: str) -> None:
    """Do nothing: no other process of the relay needs to know."""


class SharedStarter(Protocol):
    """Gives protocols the children that all workers of the relay share."""

    def __call__(self, name: str, received: Callable[[bytes], None], ended: Callable[[str], None]) -> Child:
        """Start the child that `ProtocolKind.shared_children` has by that name, or connect to it if workers share it.

        Without workers this is `Services.start_child`. Otherwise the supervisor has started the child, and starts it
        again when it ends. Then the `Child` is a connection to it: it has no number, `Child.kill` only ends the
        connection, and ``ended`` is called when the connection has ended. To connect again, call this again.
        """


class QuotaSharing(Protocol):
    """Shares the quotas of a protocol with the members of the cluster."""

    def __call__(self, tables: Callable[[], Mapping[str, ClusterBuckets[Any]]]) -> Callable[[], object]:
        """Share the buckets that ``tables`` returns, by the name of their quota; a reload may replace them.

        Names begin with that of the protocol and are the same in all members. Keys are bytes, or `AddressKey`; keys of
        one table are of one length. Returns what the ledgers of the buckets call when they have something to hand out:
        it is handed out soon, and debts are absorbed when they are heard. Nothing waits for that.
        """


@dataclass(frozen=True, slots=True)
class Services:
    """What the relay provides to a protocol. ``now`` is the monotonic clock, and ``call_later`` follows it.

    ``in_thread`` makes a call in the reactor's thread pool. ``refused`` returns how many upgrades and requests were
    refused since the start, by route (None for paths of no protocol) and reason; ``reload_failures`` how many reloads
    and list files could not be applied. ``start_child`` starts a child process, and ``start_shared`` gives one of those
    that all workers share. ``strike`` holds an offence against a client, who may be jailed for it; the reason is a
    fixed word. ``is_exempt`` tells whether a client is on the list of ``--allow``, which no quota holds for. ``agent``
    returns an HTTP client, which follows no redirects and receives 64 KiB of an answer at most. Relative paths of
    options start at ``base``. ``vacated`` is to be called with each key that `RunningProtocol.holds` no longer, exactly
    once for each time, so that another process may hold it. This process is the worker ``worker_index`` of
    ``worker_count``, which are one relay. ``broadcast`` returns a new `Broadcast` about a subject, which has a name of
    lower-case letters, to the other relays of the cluster, and ``share_quotas`` shares quotas with them; both are None
    without a cluster.
    """

    now: Callable[[], float]
    call_later: Callable[[float, Callable[[], None]], Cancellable]
    in_thread: Callable[[Callable[[], Any]], Deferred[Any]]
    log: LineWriter
    refused: Callable[[], Mapping[tuple[str | None, str], int]]
    reload_failures: Callable[[], int]
    start_child: ChildStarter
    start_shared: SharedStarter
    strike: Callable[[ClientAddress, str], None]
    is_exempt: Callable[[ClientAddress], bool]
    agent: Callable[[], IAgent]
    base: Path
    vacated: Callable[[str], None] = _tell_nobody
    worker_index: int = 0
    worker_count: int = 1
    broadcast: Callable[[str], Broadcast] | None = None
    share_quotas: QuotaSharing | None = None


Figure: TypeAlias = int | float | str
"""A value of `RunningProtocol.figures`."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of the dashboard.

    ``series`` has the key of a figure for each line, by what the legend calls it; ``parts_of`` is the key of a sum
    whose parts have a line each. Totals are shown per second. ``unit`` is that of the figures.
    """

    title: str
    series: Mapping[str, str] = field(default_factory=dict)
    parts_of: str = ""
    unit: Literal["", "s", "bytes"] = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """The part of a protocol in the dashboard. ``words`` explains its refusal words in a sentence each.

    ``shared`` names the figures, and the keys of `RunningProtocol.health`, that all processes of a relay have in
    common, such as the size of a database: the relay has as much as the one that shows most, and not the sum.
    """

    title: str
    plots: Sequence[Plot]
    words: Mapping[str, str] = field(default_factory=dict)
    shared: Sequence[str] = ()


Action: TypeAlias = Callable[[bytes], "bytes | Deferred[bytes]"]
"""Takes the body of a request of the operator, and returns JSON. Raises `ActionError`, or has the Deferred fail so."""


class ActionError(ValueError):
    """A request of the operator that cannot be fulfilled; `str` of it is one line with the fix."""


class Predecessor(Protocol):
    """A protocol in the process that this one succeeds. It serves its peers until it has moved them here."""

    def ask(self, question: bytes) -> Deferred[bytes | None]:
        """Ask it, in UTF-8; the answer is what its `RunningProtocol.answer` returns, None if it has gone or failed."""

    def when_released(self) -> Deferred[None]:
        """Fire when it has moved its peers and closed what only one process can have; at once if it has gone."""


OptionsT = TypeVar("OptionsT", contravariant=True)


class RunningProtocol(Protocol[OptionsT]):
    """A protocol in one running relay."""

    @property
    def routes(self) -> Mapping[str, Application]:
        """The application for each path. Several paths may share one."""

    def configure(self, options: OptionsT) -> None:
        """Enforce these options from now on; called at the start and at every reload."""

    def collectors(self) -> Iterable[Collector]:
        """Return its collectors for ``/metrics``. Every label value exists from the first scrape."""

    def figures(self) -> Mapping[str, Figure]:
        """Return what operators watch, for ``GET /status`` and the dashboard; asked once a second, so it must be cheap.

        A key is a fixed name. One that ends in ``_total`` counts since the start, and the others are values of now. The
        parts of a sum have the name of the sum, a dot and a fixed word, such as ``events_total.stored``. Names end in
        their unit, ``_s`` or ``_bytes``, before ``_total``; those without one are numbers.
        """

    def panel(self) -> Panel:
        """Return what the dashboard shows of its figures; asked once, at the start."""

    def health(self) -> Mapping[str, object]:
        """Return its keys of ``/healthz``."""

    def is_healthy(self) -> bool:
        """Return whether it can serve; while it cannot, ``/healthz`` answers 503."""

    def actions(self) -> Mapping[str, Action]:
        """Return its actions of the admin API, by name: ``POST /<protocol>/<name>`` calls one with the body."""

    def start(self, predecessor: Predecessor | None = None) -> None:
        """Begin to work: the process has its user, is in the background if it shall be, and accepts connections.

        If there is a ``predecessor``, new peers come here from now on, and its own peers little by little.
        """

    def hand_over(self, over_s: float) -> Deferred[None] | None:
        """Move all peers to a process that has taken over: close them with 1001, spread over that time.

        That process accepts all new connections. Peers that belong together must be closed together. Peers whose
        connections were accepted before may still open here; they should be closed with 1001 at once, unless they
        belong to peers that are still here. When the Deferred fires, the other process may open what only one process
        can have, such as a database, and peers that are left are closed with 1001.
        """

    def answer(self, question: bytes) -> bytes | Deferred[bytes]:
        """Answer a question of the process that has taken over, see `Predecessor.ask`.

        The first ones may come a moment before `hand_over`; the process accepts no connections any more by then.
        """

    def take_back(self) -> None:
        """Serve as before: the process that had taken over has died. Called after `hand_over`, perhaps before it ended.

        What that process was asked is forgotten.
        """

    def held_keys(self) -> Collection[str]:
        """Return the keys (see `Application.place_key`) that peers here hold, as they are now.

        A protocol whose peers can be served by any process holds none.
        """

    def holds(self, key: str) -> bool:
        """Tell whether a key is held here, so that peers with it must be served here."""

    def evict(self, key: str) -> None:
        """Give up a key, because another process of the relay holds it: close all of its peers here.

        Does nothing if the key is not held.
        """

    def move(self, key: str) -> None:
        """Close all peers of a key here with 1001 in one go, so that they connect again, to another process.

        Does nothing if the key is not held.
        """

    def drain(self) -> Deferred[None] | None:
        """Prepare for the end: no connection is accepted any more, and all will be closed with 1001.

        A Deferred delays that, but not longer than the time for draining. What is sent until then is delivered before
        the close frame, as far as the peer takes it.
        """

    def stop(self) -> Deferred[None] | None:
        """Cancel all timers, and end all children. Called when all connections are gone.

        The process ends when the Deferred has fired. It should take a few seconds at most.
        """


class ProtocolKind(ProtocolOptions, Protocol):
    """A protocol before anything runs: an entry of `pyryrelay.mounts`."""

    def shared_children(self, options: Any) -> Mapping[str, Sequence[str]]:
        """Return the children that all workers of a relay share, with the arguments of each; see `ChildStarter`.

        The names are unique among all protocols, and short: they become names of files. If there are several workers,
        a child gets ``shared`` as an additional argument, a listening UNIX socket as its descriptor 3, where workers
        connect, and nothing on descriptor 0, at whose end it has to end.
        """

    def build(self, options: Any, services: Services) -> RunningProtocol[Any]:
        """Return the protocol for one relay, ready to be mounted."""
