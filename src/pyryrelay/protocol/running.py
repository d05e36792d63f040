"""What a protocol brings: before anything runs, and in one running relay. Times are seconds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred

from pyryrelay.guard import ClientAddress
from pyryrelay.protocol.application import Application
from pyryrelay.protocol.explaining import Named, Rule
from pyryrelay.protocol.operating import Action, Figure, Panel
from pyryrelay.protocol.services import Services
from pyryrelay.protocol_options import ProtocolOptions

OptionsT = TypeVar("OptionsT", contravariant=True)


class Predecessor(Protocol):
    """A protocol in the process that this one succeeds. It serves its peers until it has moved them here."""

    def ask(self, question: bytes) -> Deferred[bytes | None]:
        """Ask it, in UTF-8; the answer is what its `RunningProtocol.answer` returns, None if it has gone or failed."""

    def when_released(self) -> Deferred[None]:
        """Fire when it has moved its peers and closed what only one process can have; at once if it has gone."""


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

    def explain_client(self, client: ClientAddress) -> Sequence[Rule]:
        """Return the rules by which this process serves or refuses a client, as they stand now; changes nothing.

        Rules that are off, and would say nothing, may be left out.
        """

    def explain_name(self, name: str) -> Named | None:
        """Explain something else that operators name, such as a public key; None if this is not the name of one.

        Raises `ActionError` for a mistake in such a name. No name may look like an address.
        """

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
