"""What the connections of one listener share: its configuration, state that changes while it runs, and callbacks.

* `ListenerContext` is the configuration of one listener, and never changes.
* `LivePolicy` is what a reload and the shutdown change. All listeners of a relay share one.
* `WaitingConnections` are the connections of one listener that are not upgraded.
* `AcceptCallbacks` is how connections tell the code that accepted them what became of them.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from twisted.logger import Logger

from pyryrelay.guard import ClientAddress, Gate, Reason, TrustPolicy
from pyryrelay.guard.address.clientip import Via
from pyryrelay.http.dates import Dates
from pyryrelay.http.hosts import HostPolicy
from pyryrelay.http.placement import Placement
from pyryrelay.protocol import Fields, Page
from pyryrelay.runtime.fair_queue import FairQueue
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.runtime.transports import IStreamTransport
from pyryrelay.websocket.connection import Connection
from pyryrelay.websocket.factory import RelayFactory

_log = Logger(namespace="pyryrelay")

HEAD_TIMEOUT_S: Final = 5.0
_ANY_HOST: Final = HostPolicy()


class Observer(Protocol):
    """Counts and logs what is refused."""

    def refused(self, route: str | None, status: int, reason: str, client: ClientAddress | None) -> None:
        """A request was refused, answered or not; a ``status`` of 0 has no answer.

        ``route`` is the application's name, None off every mounted path.
        """

    def attempted(self, client: ClientAddress, via: Via) -> None:
        """An upgrade was attempted, and how it came here."""

    def decided(self, seconds: float) -> None:
        """How long it took to decide about a complete request head, and to do what was decided."""


class LivePolicy:
    """What a reload and the shutdown change; all listeners of a relay share one, and only its methods change it.

    ``trust`` says which forwarding headers count, and ``hosts`` which names requests may ask for. Refusals for the
    reasons in ``dropped`` are not answered. While ``draining``, no connection is upgraded any more.
    """

    __slots__ = ("draining", "dropped", "hosts", "trust")

    def __init__(self, trust: TrustPolicy, dropped: frozenset[str] = frozenset({Reason.JAILED})) -> None:
        self.draining = False
        self.configure(trust, dropped)

    def configure(self, trust: TrustPolicy, dropped: frozenset[str], hosts: HostPolicy = _ANY_HOST) -> None:
        """Enforce this from now on."""
        self.hosts = hosts
        self.trust = trust
        self.dropped = dropped

    def drain(self) -> None:
        """Refuse every upgrade from now on."""
        self.draining = True


class Waiting(Protocol):
    """A connection that is not upgraded."""

    def shut_down(self) -> None:
        """End it without waiting for its peer."""


class WaitingConnections(set[Waiting]):
    """The connections of one listener that are not upgraded. They add and discard themselves."""

    __slots__ = ()

    def shut_down(self) -> None:
        """End all of them."""
        for connection in list(self):
            connection.shut_down()


class AcceptCallbacks:
    """How connections tell the code that accepted them what became of them.

    ``accepted``, if there is one, is called with the transport of each new connection's socket, also below TLS.
    """

    __slots__ = ("_batch", "_calls", "accepted")

    def __init__(self, accepted: Callable[[IStreamTransport], None] | None = None) -> None:
        self.accepted = accepted
        self._batch: list[Connection] | None = None
        self._calls: list[Callable[[], None]] = []

    def begin_batch(self) -> None:
        """Collect what is to be done at the end of a batch of connections, from now on."""
        self._batch = []

    def end_batch(self) -> None:
        """Make the calls that were left for the end, and answer the upgrades. A fault of one ends nothing else."""
        batch, self._batch = self._batch, None
        if self._calls:
            calls, self._calls = self._calls, []
            for call in calls:
                try:
                    call()
                except Exception:
                    _log.failure("A connection could not be carried")
        for websocket in batch or ():
            try:
                websocket.flush()
            except Exception:
                _log.failure("A connection could not be accepted")
                websocket.transport.abortConnection()

    def at_end(self, call: Callable[[], None]) -> None:
        """Call at the end of the batch, or at once outside of one."""
        if self._batch is None:
            call()
        else:
            self._calls.append(call)

    def upgraded(self, websocket: Connection) -> None:
        """Send the answer to an upgrade: at the end of a batch, or at once outside of one."""
        if self._batch is None:
            websocket.flush()
        else:
            self._batch.append(websocket)


@dataclass(frozen=True, slots=True, eq=False)
class ListenerContext:
    """The configuration of one listener, and where its state is.

    ``proxy_protocol``: each connection begins with a PROXY header, from a trusted proxy. ``behind_proxy_protocol``: the
    transport reads that header, so that the peer is known with the request head only. ``fair_queue`` is shared by all
    listeners, for what TLS costs. ``dated`` puts a date into an answer. ``placement`` knows which process serves an
    upgrade; without one, all are served here.
    """

    gate: Gate
    routes: Mapping[str, RelayFactory]
    pages: Mapping[str, Callable[[], Page]]
    observer: Observer
    wheel: TimerWheel
    now: Callable[[], float]
    live: LivePolicy
    callbacks: AcceptCallbacks = field(default_factory=AcceptCallbacks)
    waiting: WaitingConnections = field(default_factory=WaitingConnections)
    behind_proxy_protocol: bool = False
    proxy_protocol: bool = False
    fair_queue: FairQueue | None = None
    dated: Callable[[bytes], bytes] = field(default_factory=Dates)
    head_timeout_s: float = HEAD_TIMEOUT_S
    placement: Placement | None = None
    answer_fields: Mapping[str | None, Fields] = field(init=False)
    """The header fields of refusals on the paths of each application that has some, by its name."""

    def __post_init__(self) -> None:
        factories = self.routes.values()
        found: dict[str | None, Fields] = {each.application.name: each.answer_fields for each in factories}
        object.__setattr__(self, "answer_fields", {name: fields for name, fields in found.items() if fields})
