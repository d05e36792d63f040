"""A relay of several worker processes, from the side of their supervisor, which serves no connection itself.

The supervisor opens the sockets, has the jail's file, and says when workers serve, reload and end. Times are seconds of
a monotonic clock.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger

from pyryrelay.acme.metrics import NO_ORDERS, AcmeCollector
from pyryrelay.admin.api import ReloadOutcome
from pyryrelay.config.derive import gate_config
from pyryrelay.guard import Gate
from pyryrelay.handover.predecessor import Predecessor
from pyryrelay.listen.kernel.drop import kernel_drop
from pyryrelay.mounts import MountedSettings
from pyryrelay.observe.health import Health
from pyryrelay.observe.sampling import SAMPLE_S
from pyryrelay.reload import Lists
from pyryrelay.service.configurations import Configurations
from pyryrelay.service.foundation import Foundation, Times
from pyryrelay.service.relay import (
    DRAIN_POLL_S,
    JAIL_SYNC_S,
    LISTS_LOOK_S,
    MOVE_LATE_S,
    QUEUE_LOOK_S,
    STOP_S,
    SWEEP_S,
)
from pyryrelay.workers.admin.assembly import Relay, WorkersAdmin
from pyryrelay.workers.admin.hand_overs import PassingCollector
from pyryrelay.workers.certificates import CertificatesOfSupervisor
from pyryrelay.workers.jails import JailOfSupervisor
from pyryrelay.workers.mesh.mesh import Mesh
from pyryrelay.workers.mesh.sockets import MeshSockets
from pyryrelay.workers.shared_children import SharedChildren
from pyryrelay.workers.sockets.passing import Passing
from pyryrelay.workers.sockets.seeds import new_seed
from pyryrelay.workers.sockets.worker_sockets import WorkerSockets, steering_of
from pyryrelay.workers.starting.greeting import WorkerGreeting
from pyryrelay.workers.steering import steer
from pyryrelay.workers.supervisor import END_LOOK_S, LOOK_S, Process, Starter, Supervisor
from pyryrelay.workers.transfer import WorkersTransfer, relay_questions

if TYPE_CHECKING:
    pass

__all__ = ["SupervisedRelay"]

_log = Logger(namespace="pyryrelay")

GONE_S: Final = 5.0
"""How long workers may take to end after their own deadlines; they are killed then."""
FAILURES: Final = 3
"""Workers that may end before they were ready, while a process is taken over from. Then it goes on instead."""


class SupervisedRelay(Service, Foundation):
    """See the module's docstring. Its arguments are those of `pyryrelay.service.RelayService`.

    ``starter`` has to be set before the start, and ``configuration`` returns the content of the configuration file as
    it was read last.
    """

    starter: Starter

    def __init__(
        self,
        settings: MountedSettings,
        reactor: Any,
        now: Callable[[], float] = time.monotonic,
        times: Times | None = None,
        reread: Callable[[], MountedSettings] | None = None,
        base: Path | None = None,
        warnings: Sequence[str] | None = None,
        predecessor: Predecessor | None = None,
    ) -> None:
        inherited = None if predecessor is None else predecessor.sockets
        super().__init__(settings, reactor, now, times or Times(), reread, base, warnings, inherited)
        self.predecessor = predecessor
        self.seed = new_seed(os.environ) if predecessor is None else predecessor.seed
        """The secret that decides which worker accepts an address and owns a key. It stays the same in upgrades."""
        self.configuration: Callable[[], bytes | None] = lambda: None
        self._stopped_by: float | None = None
        self._ready: Deferred[None] | None = None
        self._failures = 0
        self._started: set[int] = set()
        self._assemble()

    def _assemble(self) -> None:
        settings, now, reactor = self.settings, self._now, self._reactor
        self.gate = Gate()
        self.health = Health(now, now())
        self.sockets = WorkerSockets(
            reactor,
            steering_of(settings, self.seed),
            self._times.head_timeout_s,
            drops=settings.kernel_drop is not False,
            inherited=self._inherited,
        )
        self._admin_listeners = self._new_listeners()
        self.jail_keeper = self._keeper_of(self.gate.jail)
        self.supervisor = supervisor = Supervisor(reactor, settings.worker_count, self._start_worker)
        supervisor.on_ready.append(self._worker_ready)
        supervisor.on_lost.append(self._worker_lost)
        supervisor.on_failed.append(self._worker_failed)
        self.jail = JailOfSupervisor(self.gate.jail, self.jail_keeper, supervisor, now, time.time)
        self.configurations = Configurations(supervisor, self.reloader.reload, lambda: self.configuration())
        names = [protocol.name for protocol in settings.active_protocols()]
        self.transfer = WorkersTransfer(
            supervisor, self.sockets, self._admin_listeners, self.jail_keeper, self.health, names
        )
        self._certificates_of_workers = CertificatesOfSupervisor(supervisor)
        self.acme = self._acme_keeper({}, lambda: not self.transfer.is_given, self._certificates_of_workers)
        if self.predecessor is not None:
            relay_questions(supervisor, self.predecessor)
        self._mesh = MeshSockets(settings.worker_count)
        # It only sends, so it is not started.
        self._passing = Passing(None, lambda: self.sockets.steering, Mesh(reactor, self._mesh.of(0)).send_object)
        self.children = SharedChildren(reactor, settings.shared_children())
        self.admin = WorkersAdmin(supervisor, self._for_admin(), reactor, now)
        self.reloader.begin()

    def _for_admin(self) -> Relay:
        """Return what the admin listener may ask and do."""
        return Relay(
            settings=lambda: self.settings,
            gate=self.gate,
            spread=self.jail.spread,
            steer=lambda address: steer(address, self.sockets.steering),
            reload=lambda: self.reload(),
            upgrade=lambda: self.upgrade(),
            is_draining=lambda: self.health.draining,
            wrong_token=self.log.wrong_token,
            collectors=(
                AcmeCollector(NO_ORDERS if self.acme is None else self.acme.orders),
                PassingCollector(lambda: self._passing.lost),
            ),
            certificates=self._certificates,
        )

    @property
    def workers(self) -> int:
        """How many processes serve connections."""
        return self.settings.worker_count

    def _configure(self, settings: MountedSettings, lists: Lists) -> None:
        allow, deny = lists.networks
        # This first, because it may refuse the settings, and then nothing must have changed.
        configure_admin = self.admin.listener.prepared(settings, self._base)
        self.gate.configure(gate_config(settings, allow, deny), self._now())
        configure_admin()
        self.settings = settings
        self.log.configure(settings.log_client_address)
        self.sockets.configure(steering_of(settings, self.seed))
        self.jail.configure(settings, allow)

    # Start

    def privilegedStartService(self) -> None:
        """Listen, while privileges last: ports under 1024 need them."""
        super().privilegedStartService()
        for text in self.settings.listen:
            self.sockets.open("--listen", text)
        if self.settings.cluster_listen:
            self.sockets.open("--cluster-listen", self.settings.cluster_listen, is_public=False)
        if self.predecessor is not None:
            self._admin_listeners.pause()
        if admin := self.settings.admin_listen:
            self._admin_listeners.open("--admin-listen", admin, self.admin.site(), unix_mode=0o600)

    def startService(self) -> None:
        """Begin the periodic work, and say where the relay can be reached."""
        if not self.sockets:
            self.privilegedStartService()
        super().startService()
        self._tell_warnings()
        self.configurations.begin()
        self._periodic.every(LOOK_S, self._look_after)
        self._periodic.every(SWEEP_S, self.jail.sweep)
        self._periodic.every(JAIL_SYNC_S, self.jail_keeper.sync)
        self._periodic.every(JAIL_SYNC_S, self.jail.tell_cluster)
        self._periodic.every(LISTS_LOOK_S, self.reloader.refresh_lists)
        self._periodic.every(QUEUE_LOOK_S, self._pass_queued)
        if self.certificates is not None:
            self.certificates.start(self._periodic)
        if self.predecessor is None:
            self.serve()
        if self.settings.admin_listen:
            self._periodic.every(SAMPLE_S, self.admin.sample)
        self._tell_where()

    def _pass_queued(self) -> None:
        """Give the workers what has come to the drop sockets: they count it, and serve who was released."""
        if not self.health.is_accepting or self.transfer.is_given:
            return
        with contextlib.suppress(OSError):
            for queued in self.sockets.queued():
                self._passing.pass_queued(queued)

    def _look_after(self) -> None:
        if self._stopped_by is None:
            self.supervisor.look_after()

    def start_workers(self) -> Deferred[None]:
        """Start all workers, and what they share; the Deferred fires when all of them were ready once."""
        self.children.start()
        self._ready = ready = Deferred[None]()
        self.supervisor.start_all()
        return ready

    def serve(self, sentences: Sequence[Sequence[object]] = ()) -> Deferred[None]:
        """Have the workers accept connections, with the jail's sentences of the predecessor, if there is one.

        The Deferred fires when all of them have begun. Each asks its predecessor then what that holds, so no peer may
        move away there before: a worker that asks later would not know which ones are still to come.
        """
        if self.acme is not None:
            # Not earlier, because an authority asks the workers that accept.
            self.acme.start(self._periodic)
        sockets = self.sockets
        kernel = kernel_drop(self.settings, sockets.handed_down, sockets.drop_sockets, sockets.without_drop_socket)
        self.jail_keeper.start(kernel, sentences)
        self.health.is_accepting = True
        if self.predecessor is not None:
            self._admin_listeners.resume()
        return self.supervisor.ask_all("serve", jail=self.jail.rows()).addCallback(lambda answers: None)

    def _start_worker(self, index: int, boot: int, ended: Callable[[str], None]) -> Process:
        has_sockets_alone = self.predecessor is None or self.predecessor.is_gone
        if index in self._started and has_sockets_alone and not self.transfer.is_given:
            self.sockets.renew(index)
        self._started.add(index)
        return self.starter(index, boot, ended)

    def greeting(self, index: int, boot: int) -> WorkerGreeting:
        """Return what a worker is told first."""
        self.configurations.worker_starts(index)
        return WorkerGreeting(
            index=index,
            count=self.supervisor.count,
            boot=boot,
            sockets=self.sockets.for_worker(index),
            mesh=self._mesh.of(index),
            seed=self.seed,
            children=self.children.addresses,
            succeeds=self.predecessor is not None and not self.predecessor.is_gone,
            configuration=self.configurations.first,
            reloaded=self.configurations.current,
        )

    def discard_waiting(self) -> None:
        """Close the connections that wait for workers that are not ready, or do not answer.

        Their descriptors are on their way, of which a user may have only so many (ETOOMANYREFS of unix(7)). Workers
        cannot be started then, so nobody would ever receive them.
        """
        for index in self.supervisor.absent:
            self._mesh.of(index).discard()

    # Workers that come and go

    def _worker_ready(self, index: int) -> None:
        if self.transfer.is_given or self._stopped_by is not None:
            return
        self.configurations.worker_ready(index)
        self._certificates_of_workers.tell(index)
        if self.health.is_accepting:
            self.supervisor.tell(index, "serve", jail=self.jail.rows())
        if self.supervisor.is_complete and self._ready is not None:
            ready, self._ready = self._ready, None
            ready.callback(None)

    def _worker_lost(self, index: int, boot: int) -> None:
        self.supervisor.tell_all("worker_lost", index=index, boot=boot)

    def _worker_failed(self, index: int, outcome: str) -> None:
        """Give up if workers do not start while there is a process that can go on."""
        self._failures += 1
        if self.predecessor is not None and not self.predecessor.is_taken and self._failures >= FAILURES:
            self.supervisor.stop()
            self.predecessor.failed(f"worker {index} ended ({outcome}) before it was ready; its log says more")

    # Reload

    def reload(self) -> Deferred[ReloadOutcome]:
        """Read the configuration and all list files again, here first, and then in all workers."""
        return self.configurations.reload()

    # Stop

    @inlineCallbacks
    def stopService(self) -> Any:
        """Have all workers end in an orderly way, and kill those that do not."""
        super().stopService()
        is_shared = self.transfer.is_given or not self.health.is_accepting
        self.health.drain()
        self._stopped_by = self._now() + self._move_s() + self._times.drain_s + 2 * STOP_S + GONE_S
        if self.acme is not None:
            self.acme.stop()
        self.supervisor.stop()
        self.supervisor.end_all()
        self._periodic.every(END_LOOK_S, self.supervisor.look_after)
        stop = getattr(self.starter, "stop", None)
        if stop is not None:
            stop()
        yield self.jail_keeper.stop_dropping()
        yield self.sockets.close(leave_to_other=is_shared)
        while not self.supervisor.is_empty and self._now() < self._stopped_by:
            yield deferLater(self._reactor, DRAIN_POLL_S)
        self.supervisor.kill_all()
        yield self.children.stop()
        self._periodic.stop()
        yield self.jail_keeper.stop()
        self.admin.stop()
        yield self._admin_listeners.close(leave_to_other=is_shared)
        self.log.stop()
        self._mesh.close()

    def _move_s(self) -> float:
        """Return how long workers may take to move their peers to other instances of a cluster."""
        return self.settings.drain_over_s + MOVE_LATE_S if self.settings.cluster_listen else 0.0

    def skip_drain(self) -> None:
        """Do not wait for peers any longer."""
        self.supervisor.tell_all("skip_drain")
