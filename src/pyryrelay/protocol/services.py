"""What the relay provides to a protocol: the clock, the log, child processes, the cluster. Times are seconds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred

from pyryrelay.broadcast import Broadcast
from pyryrelay.guard import ClientAddress, ClusterBuckets

if TYPE_CHECKING:
    from twisted.web.iweb import IAgent


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
