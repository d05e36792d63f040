"""The supervisor of several workers as a process: what twistd runs with ``--workers``."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred

from pyryrelay.preflight.open_files import files_needed, raise_open_files
from pyryrelay.service.supervised import SupervisedRelay
from pyryrelay.start.process import ProcessService
from pyryrelay.workers.starting.forking import ForkingStarter
from pyryrelay.workers.starting.greeting import WorkerGreeting
from pyryrelay.workers.starting.parents import adopt_orphans
from pyryrelay.workers.starting.process import drop_lines
from pyryrelay.workers.starting.spawning import SpawningStarter
from pyryrelay.workers.supervisor import LOOK_S

__all__ = ["SupervisorService"]


class SupervisorService(ProcessService, SupervisedRelay):
    """See the module's docstring."""

    def privilegedStartService(self) -> None:
        """See `ProcessService`."""
        if self.command is not None:
            kind = ForkingStarter if adopt_orphans() else SpawningStarter
            copy = drop_lines if self.log_output is None else self.log_output.copy
            self.starter = starter = kind(self._reactor, self.command, self.greeting, copy)
            if isinstance(starter, ForkingStarter):
                starter.on_crowded = self.discard_waiting
        super().privilegedStartService()

    def startService(self) -> None:
        """See `ProcessService`."""
        # What workers hand each other counts against the limit of this process, too, when it starts one (unix(7)).
        raise_open_files(files_needed(self.gate.leases.limits, self.settings))
        super().startService()
        starter = getattr(self, "starter", None)
        if isinstance(starter, ForkingStarter):
            self._periodic.every(LOOK_S, starter.look_after)

    def greeting(self, index: int, boot: int) -> WorkerGreeting:
        """Return what a worker is told; it renders its lines of the log as ours are."""
        found = super().greeting(index, boot)
        return found if self.log_output is None else replace(found, log_form=self.log_output.form)

    def get_ready(self) -> Deferred[None]:
        """Start the workers, and fire when all of them were ready once."""
        return self.start_workers()

    @property
    def workers(self) -> int:  # type: ignore[override]
        """How many processes serve connections."""
        return self.settings.worker_count
