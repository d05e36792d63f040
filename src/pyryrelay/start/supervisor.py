"""The supervisor of several workers as a process: what twistd runs with ``--workers``."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from pyryrelay.service.supervised import SupervisedRelay
from pyryrelay.start.process import ProcessService
from pyryrelay.workers.starting.process import WorkerStarter

__all__ = ["SupervisorService"]


class SupervisorService(ProcessService, SupervisedRelay):
    """See the module's docstring."""

    def privilegedStartService(self) -> None:
        """See `ProcessService`."""
        if self.command is not None:
            self.starter = WorkerStarter(self._reactor, self.command, self.greeting)
        super().privilegedStartService()

    def get_ready(self) -> Deferred[None]:
        """Start the workers, and fire when all of them were ready once."""
        return self.start_workers()

    @property
    def workers(self) -> int:  # type: ignore[override]
        """How many processes serve connections."""
        return self.settings.worker_count
