"""Which configuration each worker of a supervisor has, and the reload of all of them.

A configuration is the content of the configuration file; None means that there is no file. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks

from pyryrelay.admin.api import ReloadOutcome
from pyryrelay.reload import run_reload

__all__ = ["Configurations"]

RELOAD_S: Final = 60.0
"""How long workers may take to reload."""
RELOAD: Final = "reload"


class Workers(Protocol):
    """What is used of a `pyryrelay.workers.supervisor.Supervisor`."""

    @property
    def indexes(self) -> Sequence[int]:
        """The indexes of the workers that are ready."""

    def ask(self, index: int, name: str, /, **body: object) -> Deferred[Any]:
        """Ask one worker."""

    def ask_all(self, name: str, /, timeout_s: float, **body: object) -> Deferred[dict[int, Any]]:
        """Ask all workers that are ready; the answers by index, without those who cannot answer in time."""


class Configurations:
    """See the module's docstring.

    ``reload`` reloads the supervisor, and ``read`` returns the configuration as it was read last.
    """

    def __init__(
        self, workers: Workers, reload: Callable[[], Deferred[ReloadOutcome]], read: Callable[[], bytes | None]
    ) -> None:
        self._workers = workers
        self._reload_here = reload
        self._read = read
        self._lock = DeferredLock()
        self.first: bytes | None = None
        """The configuration at the start of the relay."""
        self.current: bytes | None = None
        """The configuration of the last reload."""
        self._told: dict[int, bytes | None] = {}
        """What each worker was told last, by index."""

    def begin(self) -> None:
        """Take what was read for the configuration at the start."""
        self.first = self.current = self._read()

    def worker_starts(self, index: int) -> None:
        """Record that a worker is told the current configuration."""
        self._told[index] = self.current

    def worker_ready(self, index: int) -> None:
        """Have a worker reload if there was a reload while it was starting."""
        if self._told.get(index) != self.current:
            self._told[index] = self.current
            asked = self._workers.ask(index, RELOAD, configuration=_text(self.current))
            asked.addErrback(lambda _: None)

    def reload(self) -> Deferred[ReloadOutcome]:
        """Read the configuration and all list files again, here first, and then in all workers."""
        return run_reload(self._lock, self._reload)

    @inlineCallbacks
    def _reload(self) -> Generator[Deferred[Any], Any, ReloadOutcome]:
        outcome: ReloadOutcome = yield self._reload_here()
        if outcome.error is not None:
            return outcome
        self.current = self._read()
        indexes = list(self._workers.indexes)
        answers = yield self._workers.ask_all(RELOAD, RELOAD_S, configuration=_text(self.current))
        self._told |= dict.fromkeys(answers, self.current)
        return _merged(outcome, indexes, answers)


def _merged(outcome: ReloadOutcome, indexes: Sequence[int], answers: Mapping[int, Mapping[str, Any]]) -> ReloadOutcome:
    """Return one outcome for the supervisor's and those of the workers that were asked."""
    for index in indexes:
        problem = answers[index]["error"] if index in answers else "it did not answer"
        if problem is not None:
            return ReloadOutcome(error=f"worker {index}: {problem}")
    changed = dict.fromkeys([*outcome.changed, *(name for each in answers.values() for name in each["changed"])])
    return ReloadOutcome(list(changed), outcome.needs_restart)


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode()
