"""Connections between the workers of one host: from the one that has accepted them to the one that owns their key.

A worker that has accepted a connection for another one's key sends it the socket, together with the request that it
has read and checked, and closes its own copy. Connections that were accepted together go in one message. The worker
keeps the lease, because it counts all connections of the client's address, and the owner tells it the end. Where TLS,
or another layer that cannot be moved, is in between, the owner gets one end of a pair of UNIX sockets, and this worker
passes the bytes on.

If the owner has no room, the client is refused (503). If the owner ends, its leases here are released; a connection
that was still on its way is served by the next process with its index, and is not counted any more. If this worker
ends, so do its leases, and the connections that it passes bytes for.

Invariant: each lease is released exactly once, whichever process ends first.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pyryrelay.http.connection import HttpFactory
from pyryrelay.http.placement import HERE, UNAVAILABLE, Attempt, Carrier, Place, Placement
from pyryrelay.listen.arrivals import Arrival, ArrivalHandler
from pyryrelay.protocol import Request
from pyryrelay.runtime.socket_options import Socket
from pyryrelay.runtime.splice.splice import Splice
from pyryrelay.runtime.timer_wheel import TimerWheel
from pyryrelay.runtime.transports import IStreamTransport
from pyryrelay.websocket.guarded import HeldLease
from pyryrelay.workers.mesh.mesh import Mesh
from pyryrelay.workers.mesh.messages import (
    MAX_HEAD_BYTES,
    MAX_HEADS,
    Ended,
    HandedOver,
    MessageError,
    encode_head,
)
from pyryrelay.workers.steering import owner_of

__all__ = ["WORKER_LOST", "HandingOver", "RemoteLease", "WorkerPlacement"]

_log = Logger(namespace="pyryrelay")

WORKER_LOST: Final = "worker_lost"
"""The supervisor's message about a worker that has ended."""


class HandedLeases:
    """The leases of connections that are served by other workers, by number."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._held: dict[int, tuple[int, HeldLease]] = {}

    def __len__(self) -> int:
        """Return the number of leases."""
        return len(self._held)

    def take(self, owner: int, lease: HeldLease) -> int:
        """Keep a lease until that worker tells the end; return its number."""
        number = next(self._numbers)
        self._held[number] = owner, lease
        return number

    def forget(self, number: int) -> None:
        """Keep a lease no longer, without releasing it: its connection was not taken."""
        self._held.pop(number, None)

    def release(self, number: int) -> None:
        """Release a lease; do nothing if it was released before."""
        _, lease = self._held.pop(number, (0, None))
        if lease is not None:
            lease.release()

    def release_all(self, owner: int | None = None) -> None:
        """Release all leases, or those of one worker."""
        for number in [number for number, (index, _) in self._held.items() if owner in (None, index)]:
            self.release(number)


class RemoteLease:
    """Stands for a lease that another worker holds, which is told when it is released."""

    __slots__ = ("_boot", "_mesh", "_number", "_sender")

    def __init__(self, mesh: Mesh, sender: int, boot: int, number: int) -> None:
        self._mesh: Mesh | None = mesh
        self._sender = sender
        self._boot = boot
        self._number = number

    def release(self) -> None:
        """Tell the worker. The first call counts; later ones do nothing."""
        mesh, self._mesh = self._mesh, None
        if mesh is not None:
            mesh.tell_ended(self._sender, self._boot, self._number)


class Leaving(NamedTuple):
    """A connection that is about to be sent to another worker, under the number of its lease."""

    attempt: Attempt
    sock: Socket
    number: int


class WorkerCarrier:
    """Takes connections to one other worker, those that were accepted together in one message."""

    def __init__(self, handing_over: HandingOver, index: int) -> None:
        self._handing_over = handing_over
        self._index = index
        self._leaving: list[Leaving] = []
        self._heads: list[bytes] = []
        self._size = 0

    def carry(self, attempt: Attempt) -> None:
        """See `pyryrelay.http.placement.Carrier`."""
        connection, handing_over = attempt.connection, self._handing_over
        if not isinstance(connection, socket.SocketType):
            handing_over.splice(self._index, attempt, connection)
            return
        number = handing_over.leases.take(self._index, attempt.lease)
        try:
            head = handing_over.head_of(attempt, number, attempt.address)
        except MessageError:
            handing_over.refuse(attempt, number)
            return
        if len(self._heads) == MAX_HEADS or self._size + len(head) > MAX_HEAD_BYTES:
            self._send()
        self._size += len(head)
        self._heads.append(head)
        self._leaving.append(Leaving(attempt, connection, number))
        if len(self._heads) == 1:
            attempt.at_end(self._send)

    def _send(self) -> None:
        heads, leaving = self._heads, self._leaving
        self._heads, self._leaving, self._size = [], [], 0
        if heads:
            self._handing_over.send(self._index, heads, leaving)


class WorkerPlacement:
    """Tells the worker of a key by its hash. ``others`` is asked about the keys of this worker, if there is one."""

    def __init__(self, index: int, carriers: Mapping[int, Carrier], others: Placement | None = None) -> None:
        """Know all workers: the ``carriers``, and this one, which has the ``index``."""
        self._index = index
        self._carriers = carriers
        self._count = len(carriers) + 1
        self.seed = 0
        """The secret that the owners of keys depend on; see `owner_of`."""
        self.others = others

    def place(self, route: str, key: str) -> Place | Deferred[Place]:
        """See `Placement`."""
        owner = owner_of(key, self._count, self.seed)
        if owner != self._index:
            return self._carriers[owner]
        return HERE if self.others is None else self.others.place(route, key)


class HandingOver:
    """See the module's docstring: one worker's part of it. Give ``placement`` to the listeners."""

    def __init__(
        self, reactor: Any, mesh: Mesh, index: int, count: int, boot: int, wheel: TimerWheel, now: Callable[[], float]
    ) -> None:
        """Belong to the worker ``index`` of ``count``, whose process has the number ``boot``."""
        self._reactor = reactor
        self.mesh = mesh
        self._index = index
        self._boot = boot
        self._wheel = wheel
        self._now = now
        self.leases = HandedLeases()
        self.splices: set[Splice] = set()
        """Connections that are served by other workers, whose bytes are passed on here."""
        self.handed_over = 0
        """Connections that were given to other workers."""
        self.received = 0
        """Connections that other workers have given to this one."""
        self.refused = 0
        """Connections that were refused because their worker had no room."""
        carriers = {other: WorkerCarrier(self, other) for other in range(count) if other != index}
        self.placement = WorkerPlacement(index, carriers)
        self._handler: ArrivalHandler | None = None
        mesh.on_handed_over = self._arrived
        mesh.on_turn = self._turn
        mesh.on_ended = self._ended

    def serve(self, factory: HttpFactory) -> None:
        """Serve the connections that others hand over, as those of this factory are."""
        self._handler = ArrivalHandler(self._reactor, factory)

    def ask_about_own_keys(self, placement: Placement) -> None:
        """Ask this placement where the keys are served that belong to this worker. It carries to other hosts only."""
        self.placement.others = placement
        if self._handler is not None:
            self._handler.placement = placement

    def start(self) -> None:
        """Receive connections from now on."""
        self.mesh.start()

    def stop(self) -> None:
        """Receive none any more, and end those whose bytes are passed on here."""
        for splice in list(self.splices):
            splice.abort()
        self.mesh.stop()
        self.leases.release_all()

    def worker_lost(self, index: int) -> None:
        """The process of a worker has ended, and with it all connections that it had."""
        self.leases.release_all(index)
        self.mesh.forget(index)

    # Giving

    def head_of(self, attempt: Attempt, number: int, address: tuple[Any, ...] | None) -> bytes:
        """Return what another worker is told about a connection. Raises `MessageError`."""
        head, rest, _, _, (path, fields, client), key, *_ = attempt
        index, boot = self._index, self._boot
        return encode_head(HandedOver(index, boot, number, str(client), address, path, fields, key, head, rest))

    def send(self, owner: int, heads: Sequence[bytes], leaving: Sequence[Leaving]) -> None:
        """Give connections to another worker, or back. A fault of one ends nothing else."""
        if self.mesh.send(owner, heads, [each.sock for each in leaving]):
            self.handed_over += len(leaving)
            for each in leaving:
                each.sock.close()
            return
        for each in leaving:
            try:
                self.refuse(each.attempt, each.number)
            except Exception:
                each.sock.close()
                _log.failure("A connection could not be carried")

    def refuse(self, attempt: Attempt, number: int) -> None:
        """Give a connection back, whose lease has this number."""
        self.leases.forget(number)
        self.refused += 1
        attempt.refuse(UNAVAILABLE)

    def splice(self, owner: int, attempt: Attempt, connection: IStreamTransport) -> None:
        """Give one end of a pair of sockets to another worker, and pass on what comes from the connection."""
        number = self.leases.take(owner, attempt.lease)
        try:
            head = self.head_of(attempt, number, None)
            ours, theirs = socket.socketpair()
        except (MessageError, OSError):
            self.refuse(attempt, number)
            return
        with theirs:
            is_sent = self.mesh.send(owner, [head], [theirs])
        if not is_sent:
            ours.close()
            self.refuse(attempt, number)
            return
        self.handed_over += 1
        splice = Splice(self._wheel, self._now, lambda: self.splices.discard(splice))
        self.splices.add(splice)
        splice.near.take(connection)
        try:
            splice.far.adopt(self._reactor, ours, None)
        except OSError:
            ours.close()
            splice.abort()

    def _ended(self, ended: Ended) -> None:
        # Another process had this index before, and its leases are gone.
        if ended.boot == self._boot:
            for number in ended.numbers:
                self.leases.release(number)

    # Taking

    def _turn(self) -> Callable[[], None]:
        handler = self._handler
        if handler is None:
            return lambda: None
        handler.begin_batch()
        return handler.end_batch

    def _arrived(self, message: HandedOver, sock: Socket) -> None:
        lease = RemoteLease(self.mesh, message.sender, message.boot, message.number)
        handler = self._handler
        client = None if handler is None else handler.client_of(message.client)
        if handler is None or client is None:
            sock.close()
            lease.release()
            return
        self.received += 1
        request = Request(message.path, message.fields, client)
        handler.receive(Arrival(sock, message.peer, request, message.key, message.head, message.rest, lease))
