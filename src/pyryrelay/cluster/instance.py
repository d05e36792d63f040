"""This process as an instance of a cluster: it asks who holds a key, sends connections there, and takes others.

Its name is the address at which other instances reach it. Its boot id comes from the listening socket: a process that
takes over this socket goes on with the same lease, and one with a socket of its own begins anew.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from pyryrelay.cluster.directory.directory import LOOK_AFTER_S, SWEEP_S, Directory
from pyryrelay.cluster.directory.members import Load, Member
from pyryrelay.cluster.directory.placement import DirectoryPlacement
from pyryrelay.cluster.directory.roll_call import ASK_S, RollCall
from pyryrelay.cluster.directory.scripts import Names
from pyryrelay.cluster.directory.shard import Holder
from pyryrelay.cluster.keys import PARTITIONS, Keys
from pyryrelay.cluster.splice.arrival import ArrivalFactory, Arrivals, OneHop
from pyryrelay.cluster.splice.carrier import OwnerCarrier, Splicing
from pyryrelay.cluster.splice.figures import Figures
from pyryrelay.cluster.splice.links import Links
from pyryrelay.cluster.splice.redirect import redirect
from pyryrelay.cluster.splice.strays import Strays
from pyryrelay.cluster.splice.ticket import Nonces
from pyryrelay.guard import CidrSet
from pyryrelay.http.listener_context import ListenerContext
from pyryrelay.http.placement import Place
from pyryrelay.runtime.periodic import Periodic
from pyryrelay.runtime.timer_wheel import TimerWheel

if TYPE_CHECKING:
    from pyryrelay.cluster.shards import Shards

__all__ = ["Instance", "Terms", "boot_of"]

_BOOT_BYTES: Final = 8
_SO_COOKIE: Final = 57
_MACHINE: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_of(sock: socket.socket | None) -> str:
    """Return an id that is the same for all processes that have the same listening socket; random without one."""
    cookie = secrets.token_bytes(_BOOT_BYTES)
    if sock is not None:
        with contextlib.suppress(OSError):
            cookie = sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8) + _MACHINE.read_bytes()
    return blake2b(cookie, digest_size=_BOOT_BYTES).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the options say. ``redirect`` is the prefix of the proxy's internal location; "" splices."""

    address: str
    peers: CidrSet
    trusts_unix: bool = False
    redirect: str = ""
    refuses_on_outage: bool = False


@dataclass(eq=False)
class Instance:
    """See the module's docstring. It works from `begin` on.

    ``claims`` tells whether a route claims its keys, and ``connections`` how many connections this process has.
    """

    terms: Terms
    servers: Shards
    keys: Keys
    holder: Holder
    claims: Callable[[str], bool]
    reactor: Any
    wheel: TimerWheel
    now: Callable[[], float]
    wall: Callable[[], float]
    connections: Callable[[], int] = lambda: 0
    figures: Figures = field(default_factory=Figures)
    strays: Strays = field(default_factory=Strays)
    nonces: Nonces = field(default_factory=Nonces)
    directory: Directory = field(init=False)
    placement: DirectoryPlacement = field(init=False)
    splicing: Splicing = field(init=False)
    roll_call: RollCall = field(init=False)
    has_begun: bool = False
    _held_before: int | None = None
    """How many keys were held when this process was told to end."""

    def begin(self, boot: str) -> None:
        """Be the instance with this boot id; nothing is asked or written yet."""
        secret, terms = self.keys.signing_key, self.terms
        me = Member(terms.address, boot, terms.address)
        # Each partition has the server that `Shards.of` names.
        servers = [self.servers.of(number) for number in range(min(len(self.servers), PARTITIONS))]
        names = Names(self.keys)
        later = self.reactor.callLater
        self.directory = Directory(servers, me, names, secret, self.holder, self.now, later, self._load)
        self.placement = DirectoryPlacement(
            self.directory,
            self.holder,
            self.claims,
            self._way_to,
            self.now,
            refuses_on_outage=terms.refuses_on_outage,
        )
        links = Links(self.now)
        self.splicing = Splicing(self.reactor, self.wheel, self.now, self.wall, me, secret, self.figures, links)
        self.roll_call = RollCall(self.directory, self.now, lambda: self._used_s(servers[0]))
        self.has_begun = True

    def _used_s(self, server: Any) -> float:
        return self.now() - server.used_since if server.is_up else 0.0

    def _load(self) -> Load:
        spliced = len(self.splicing.splices)
        return Load(len(self.holder.held_keys()), spliced, self.figures.arrived, self.connections())

    def _way_to(self, owner: Member, key: str) -> Place:
        if self.terms.redirect:
            self.figures.redirected += 1
            me, secret = self.directory.member, self.keys.signing_key
            return redirect(self.terms.redirect, owner, me, secret, self.wall(), secrets.token_bytes)
        return OwnerCarrier(self.splicing, owner, lambda: self.placement.routes.forget(key))

    def arrivals(self, spliced: ListenerContext, redirected: ListenerContext) -> ArrivalFactory:
        """Return the factory for ``--cluster-listen``, with the contexts that `Arrivals` describes."""
        return ArrivalFactory(lambda: self._arrivals(spliced, redirected))

    def _arrivals(self, spliced: ListenerContext, redirected: ListenerContext) -> Arrivals:
        terms, here = self.terms, OneHop(self.placement, self.figures)
        return Arrivals(
            terms.peers,
            terms.trusts_unix,
            self.directory.member,
            self.keys.signing_key,
            self.nonces,
            self.figures,
            replace(spliced, placement=here),
            replace(redirected, placement=here) if terms.redirect else None,
            self.wall,
            self.strays,
        )

    # Life

    def start(self, periodic: Periodic) -> None:
        """Take the lease, and keep it."""
        # A process before this one, with the same boot id, may have taken tickets that were made earlier.
        self.nonces.begin(self.wall())
        self.directory.look_after()
        periodic.every(LOOK_AFTER_S, self.directory.look_after)
        periodic.every(ASK_S, self.roll_call.ask)
        periodic.every(SWEEP_S, self.directory.sweep)

    def vacated(self, key: str) -> None:
        """Release a key that is not held here any more."""
        if self.has_begun:
            self.strays.forget(key)
            self.directory.vacated(key)

    def hand_over(self) -> None:
        """Leave the lease to the process that takes the listening socket over."""
        self.directory.hand_over()
        self.nonces.end()

    def take_back(self) -> None:
        """Keep the lease again: that process has died."""
        self.directory.take_back()
        self.nonces.begin(self.wall())

    def leave(self) -> Deferred[Any]:
        """Delete the lease, so that nobody waits for its end. Never fails."""
        return self.directory.leave(self._held_before)

    def drain(self) -> None:
        """Remember what is held: it is moved from now on, and the others are told how much that was."""
        if self.has_begun and self._held_before is None:
            self._held_before = len(self.holder.held_keys())

    def cut_off(self) -> None:
        """Cut off the connections that are served elsewhere."""
        for splice in list(self.splicing.splices):
            splice.abort()

    @property
    def spliced_bytes(self) -> int:
        """The number of bytes that were passed on since the start, both ways."""
        going = (splice.near.passed_bytes + splice.far.passed_bytes for splice in self.splicing.splices)
        return self.figures.bytes + sum(going)
