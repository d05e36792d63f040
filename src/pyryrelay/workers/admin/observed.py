"""The supervisor's side: what it knows about its workers from the samples that it asks them for.

A worker that leaves a question for a sample unanswered for `SILENT_S` counts as silent: it is shown as such. One that
leaves any question unanswered in time is late at once, and is asked nothing but for samples until it has answered, so
that it delays only one answer. What a worker that died had counted is kept. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from twisted.internet import defer
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from pyryrelay.admin.dashboard.samples import difference
from pyryrelay.observe.sampling import Snapshot
from pyryrelay.protocol import Panel, Plot
from pyryrelay.workers.merging.samples import resting
from pyryrelay.workers.merging.statuses import Gone
from pyryrelay.workers.rpc import RpcError
from pyryrelay.workers.supervisor import State, WorkerStatus

__all__ = ["ANSWER_S", "READ_S", "SILENT_S", "Observed", "Workers", "WorkersView", "figures_of"]

_log = Logger(namespace="pyryrelay")

ANSWER_S: Final = 5.0
"""How long an answer waits for a worker that is to do something."""
READ_S: Final = 1.0
"""How long one waits that only shows something, and says what is missing: load balancers have little patience. A worker
is late if a sample takes as long."""
SILENT_S: Final = 3.0


class Workers(Protocol):
    """The workers, as far as this module needs them: a `pyryrelay.workers.supervisor.Supervisor`."""

    on_ready: list[Callable[[int], None]]
    on_lost: list[Callable[[int, int], None]]

    @property
    def count(self) -> int:
        """How many there are to be."""

    @property
    def indexes(self) -> Sequence[int]:
        """The indexes of those that are ready."""

    def status(self) -> list[WorkerStatus]:
        """Return what each of them does."""

    def ask(self, index: int, name: str, /, **body: object) -> Deferred[Any]:
        """Ask one of them."""


@dataclass(slots=True)
class Observed:
    """What one worker has told."""

    boot: int
    asked_at_s: float | None = None
    """When it was asked for a sample that it has not sent yet."""
    is_late: bool = False
    """Whether it has left a question unanswered in time, and has answered none since."""
    latest: Snapshot | None = None
    shown: Snapshot | None = None
    """The last snapshot that is part of a sample of the dashboard."""
    sample: dict[str, Any] | None = None
    """The last sample of the dashboard, see `pyryrelay.workers.merging.samples`."""
    health: Mapping[str, Any] = field(default_factory=dict)
    cluster: Mapping[str, Any] | None = None
    refusals: list[Mapping[str, Any]] = field(default_factory=list)
    """Those that came since they were taken last."""


class WorkersView:
    """See the module's docstring. ``is_ending`` tells whether workers that end were told to."""

    def __init__(self, workers: Workers, reactor: Any, now: Callable[[], float], is_ending: Callable[[], bool]) -> None:
        self.workers = workers
        self.gone = Gone()
        self.restarts = dict.fromkeys(range(workers.count), 0)
        """How many workers of each index have ended without having been told to."""
        self.panels: dict[str, Panel] = {}
        self.actions: dict[str, Sequence[str]] = {}
        """The names of the actions of each protocol that has some."""
        self._reactor = reactor
        self._now = now
        self._is_ending = is_ending
        self._observed: dict[int, Observed] = {}
        workers.on_ready.append(self._ready)
        workers.on_lost.append(self._lost)

    # What is known

    @property
    def shared(self) -> dict[str, Sequence[str]]:
        """The figures of each protocol that all workers have in common."""
        return {name: panel.shared for name, panel in self.panels.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Return what each worker does, for people and for ``GET /status``."""
        return [self._row(status) for status in self.workers.status()]

    def _row(self, status: WorkerStatus) -> dict[str, Any]:
        observed = self._observed.get(status.index)
        latest = None if observed is None else observed.latest
        started_at = status.started_at
        return {
            "index": status.index,
            "pid": status.pid,
            "boot": status.boot,
            "state": self._state(status),
            "uptime_s": 0.0 if started_at is None else round(max(0.0, self._reactor.seconds() - started_at), 3),
            "connections": 0 if latest is None else sum(latest.connections.values()),
            "memory_bytes": 0 if latest is None else latest.memory_bytes,
            "cpu_s": 0.0 if latest is None else round(latest.cpu_s, 3),
            "restarts": self.restarts[status.index],
        }

    def _state(self, status: WorkerStatus) -> str:
        if status.state is not State.READY:
            return str(status.state.value)
        if self.is_silent(status.index) or ((observed := self._observed.get(status.index)) and observed.is_late):
            return "silent"
        return "draining" if self._is_ending() else "running"

    def is_silent(self, index: int) -> bool:
        """Return whether a worker that is ready has not answered for long."""
        return self._waits_for_sample(index, SILENT_S)

    def _waits_for_sample(self, index: int, seconds: float) -> bool:
        observed = self._observed.get(index)
        asked_at_s = None if observed is None else observed.asked_at_s
        return asked_at_s is not None and self._now() - asked_at_s >= seconds

    def _is_late(self, index: int) -> bool:
        observed = self._observed.get(index)
        return (observed is not None and observed.is_late) or self._waits_for_sample(index, READ_S)

    @property
    def serving(self) -> list[int]:
        """The indexes of the workers that are ready and not silent."""
        return [index for index in self.workers.indexes if not self.is_silent(index)]

    @property
    def answering(self) -> list[int]:
        """The indexes of the workers that are ready and not late."""
        return [index for index in self.workers.indexes if not self._is_late(index)]

    def observed(self) -> Iterable[tuple[int, Observed]]:
        """Yield what the workers that are there have told, by index."""
        return sorted(self._observed.items())

    def remembered(self, answers: Mapping[int, Any]) -> list[dict[str, Any]]:
        """Return the last figures of the workers that are there, but have not answered."""
        return [
            figures_of(one.latest) for index, one in self.observed() if index not in answers and one.latest is not None
        ]

    # Asking

    def ask(self, index: int, name: str, /, timeout_s: float = ANSWER_S, **body: object) -> Deferred[Any]:
        """Ask one worker. Fails with `RpcError`, or `twisted.internet.defer.TimeoutError`."""
        asked = self.workers.ask(index, name, **body).addTimeout(timeout_s, self._reactor)
        return asked.addBoth(_noted, self._of(index))

    def ask_all(self, name: str, /, timeout_s: float = ANSWER_S, **body: object) -> Deferred[dict[int, Any]]:
        """Ask all workers that are not late; the answers by index, without those that did not come in time."""
        indexes = self.answering
        asked = [self.ask(index, name, timeout_s, **body) for index in indexes]

        def answered(outcomes: Sequence[tuple[bool, Any]]) -> dict[int, Any]:
            return {index: value for index, (is_good, value) in zip(indexes, outcomes, strict=True) if is_good}

        return DeferredList(asked, consumeErrors=True).addCallback(answered)

    def ask_for_samples(self, *, is_watched: bool, done: Callable[[], None], lists_instances: bool = False) -> None:
        """Ask each worker for a sample, and call ``done`` when all that have no earlier question have answered.

        With ``lists_instances`` one of them is asked for the instances of the cluster, too.
        """
        asked = [index for index in self.workers.indexes if self._of(index).asked_at_s is None]
        waiting = {*asked}

        def settle(index: int) -> None:
            waiting.discard(index)
            if not waiting:
                done()

        for index in asked:
            observed = self._of(index)
            observed.asked_at_s = self._now()
            lists = lists_instances and index == asked[0]
            asking = self.workers.ask(index, "sample", is_watched=is_watched, lists_instances=lists)
            asking.addCallback(self._sampled, observed)
            asking.addBoth(_settled, partial(settle, index))
        if not asked:
            done()

    def _of(self, index: int) -> Observed:
        (boot,) = [status.boot for status in self.workers.status() if status.index == index]
        observed = self._observed.get(index)
        if observed is None or observed.boot != boot:
            observed = self._observed[index] = Observed(boot)
        return observed

    def _sampled(self, body: Mapping[str, Any], observed: Observed) -> None:
        observed.asked_at_s, observed.is_late = None, False
        observed.latest = Snapshot(**body["snapshot"])
        observed.health = body["health"]
        observed.cluster = body.get("cluster")
        observed.refusals.extend(body["refusals"])

    def take(self, wall_s: float) -> tuple[list[dict[str, Any]], list[Mapping[str, Any]]]:
        """Return a sample of each worker, with what has happened since the last call, and all new refusals."""
        samples, refusals = [], []
        for _, one in self.observed():
            if one.latest is None:
                continue
            if one.latest is one.shown and one.sample is not None:
                one.sample = resting(one.sample)
            else:
                before = one.shown or one.latest
                one.sample = difference(before, one.latest, wall_s, "running")
                one.sample["decided"] = one.latest.decisions - before.decisions
            one.shown = one.latest
            samples.append(one.sample)
            refusals += one.refusals
            one.refusals = []
        return samples, refusals

    # Their life

    def _ready(self, index: int) -> None:
        self.ask(index, "about").addCallbacks(self._told, lambda _: None)

    def _told(self, about: Mapping[str, Any]) -> None:
        self.actions = about["actions"]
        self.panels = {name: _panel(panel) for name, panel in about["panels"].items()}

    def _lost(self, index: int, boot: int) -> None:
        if not self._is_ending():
            self.restarts[index] += 1
        observed = self._observed.get(index)
        if observed is not None and observed.boot == boot:
            del self._observed[index]
            if observed.latest is not None:
                self.gone.add(figures_of(observed.latest))


def _noted(outcome: object, observed: Observed) -> object:
    """Remember whether a worker has answered in time."""
    observed.is_late = isinstance(outcome, Failure) and outcome.check(defer.TimeoutError) is not None
    return outcome


def _settled(outcome: object, settle: Callable[[], None]) -> None:
    """Go on, whether a worker has answered or has ended. What is wrong with an answer is logged."""
    if isinstance(outcome, Failure) and not outcome.check(RpcError):
        _log.failure("A sample of a worker cannot be read", outcome)
    settle()


def figures_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return the figures of a snapshot under the keys of ``GET /status``."""
    (received, sent), (bytes_in, bytes_out) = snapshot.messages, snapshot.bytes
    return {
        "connections": snapshot.connections,
        "handshakes": snapshot.handshakes,
        "admitted": snapshot.admitted,
        "refused": snapshot.refused,
        "messages": {"in": received, "out": sent},
        "bytes": {"in": bytes_in, "out": bytes_out},
        "tracked": snapshot.tracked,
        "jailed": snapshot.jailed,
        "memory_bytes": snapshot.memory_bytes,
        "cpu_s": snapshot.cpu_s,
        "reactor_lag_s": snapshot.reactor_lag_s,
        "protocols": snapshot.protocols,
    }


def _panel(panel: Mapping[str, Any]) -> Panel:
    return Panel(**{**panel, "plots": [Plot(**plot) for plot in panel["plots"]]})
