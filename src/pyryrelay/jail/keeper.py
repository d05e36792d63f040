"""Keeps what the jail decided: in a file that survives a restart, and in the kernel where that is wanted and allowed.

Writing the file and building a filter take too long for the reactor, so a thread does both, one thing at a time.
Invariant: after `stop_dropping` no socket has a filter of ours, and after `stop` the file is complete.

Times are seconds of the monotonic clock ``now``; ``wall`` is the clock of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock, inlineCallbacks

from pyryrelay.guard import AddressKey, Jail
from pyryrelay.guard.address.keys import IPV6_PREFIX_BITS, network_of
from pyryrelay.guard.address.lists import IPNetwork
from pyryrelay.jail.store import JailStore
from pyryrelay.listen.kernel.drop import KernelDrop, KernelDropError

MAX_IN_KERNEL: Final = 4096
"""Sentences offered to the kernel's filter, the longest first; it takes as many as it has room for."""

SLICES: Final = 100
"""Bound on the transactions of one `keep`, of 200 changes each: so much can be new in a second."""

REST: Final = 50
MOST_REST_S: Final = 5.0
"""How many times as long as it took to build a filter the next one is put off, and a bound: others need the CPU too."""


@dataclass(frozen=True, slots=True)
class KernelPolicy:
    """What may be dropped in the kernel: nothing in the networks ``jail_exempt``.

    The jail knows keys, and a key stands for the client that has it, or for a whole /48: after ``ipv6_prefix`` has
    changed, other keys of before are nobody's. In the kernel they would be networks.
    """

    jail_exempt: Sequence[Iterable[IPNetwork]] = ()
    ipv6_prefix: int = 64

    def networks(self, keys: Iterable[AddressKey]) -> list[IPNetwork]:
        """Those of the keys that are jailed."""
        lengths = {4: {32}, 6: {self.ipv6_prefix, IPV6_PREFIX_BITS}}
        return [network for network in map(network_of, keys) if network.prefixlen in lengths[network.version]]


InThread = Callable[[Callable[[], Any]], Deferred[Any]]
"""Calls something in a thread; the Deferred has what it returned."""


class JailKeeper:
    """Call `start` once, `keep` every second or so, and at the end `stop_dropping`, then `stop`.

    ``warn`` is given one line at a time.
    """

    def __init__(
        self,
        jail: Jail,
        store: JailStore | None,
        now: Callable[[], float],
        wall: Callable[[], float],
        warn: Callable[[str], None],
        in_thread: InThread,
    ) -> None:
        self._jail = jail
        self._store = store
        self._now = now
        self._wall = wall
        self._warn = warn
        self._in_thread = in_thread
        self._turn = DeferredLock()
        self._kernel: KernelDrop | None = None
        self._in_kernel: Sequence[AddressKey] | None = None
        self._kernel_rests_until = -inf
        self._policy = KernelPolicy()
        self._new_policy: KernelPolicy | None = None

    def start(self, kernel: KernelDrop | None = None) -> None:
        """Take over the sentences of the file; with ``kernel``, begin to drop in the kernel, as far as we may."""
        if self._store is not None:
            self._jail.restore(self._store.load(self._now(), self._wall()), self._now())
        if kernel is None:
            return
        self._kernel = kernel
        kernel.spare(chain.from_iterable(self._policy.jail_exempt))
        try:
            kernel.start()
        except KernelDropError as error:
            self._tell(error)

    def configure(self, policy: KernelPolicy) -> None:
        """Drop in the kernel by this policy, from the start on or from the next `keep` on."""
        if self._kernel is None:
            self._policy = policy
        elif policy != (self._new_policy or self._policy):
            self._new_policy = policy

    def _tell(self, error: KernelDropError) -> None:
        self._warn(f"--kernel-drop: {error}")
        if self._kernel is not None:
            self._kernel.give_up()
            self._kernel = self._kernel if self._kernel.is_on else None

    @property
    def filters_sockets(self) -> bool:
        """Whether accepted sockets carry a filter that they should not keep."""
        return self._kernel is not None and self._kernel.filters_sockets

    def keep(self) -> Deferred[None]:
        """Write down what changed since the last time; the Deferred fires when that is done."""
        return self._turn.run(self._keep)

    @inlineCallbacks
    def _keep(self) -> Generator[Deferred[Any], Any, None]:
        for _ in range(SLICES):
            save = self._next_slice()
            if save is None:
                break
            yield self._in_thread(save)
        if self._kernel is not None:
            yield from self._keep_kernel(self._kernel)

    def _keep_kernel(self, kernel: KernelDrop) -> Generator[Deferred[Any], Any, None]:
        began = self._now()
        if self._new_policy is not None:
            policy = self._policy = self._new_policy
            self._new_policy = None
            yield self._in_thread(lambda: kernel.spare(chain.from_iterable(policy.jail_exempt)))
            self._in_kernel = None
        keys = [sentence.key for sentence in self._jail.longest(began, MAX_IN_KERNEL)]
        there = self._in_kernel
        # More can wait; but nobody is dropped who is free.
        if keys == there or (there is not None and began < self._kernel_rests_until and set(there) <= set(keys)):
            return
        try:
            yield self._in_thread(lambda: kernel.update(self._policy.networks(keys)))
        except KernelDropError as error:
            self._tell(error)
        self._in_kernel = keys
        ended = self._now()
        self._kernel_rests_until = ended + min(MOST_REST_S, REST * (ended - began))

    def _next_slice(self) -> Callable[[], object] | None:
        """What writes down some of what changed; None if nothing did."""
        store, changes = self._store, self._jail.changes()
        if store is None or not (changes.kept or changes.gone):
            return None
        now, wall = self._now(), self._wall()
        return lambda: store.save(changes.kept, changes.gone, now, wall)

    @inlineCallbacks
    def stop_dropping(self) -> Generator[Deferred[Any], Any, None]:
        """Leave the kernel clean. Call it while the sockets are open: one that was handed down outlives us."""
        yield self._turn.acquire()
        if self._kernel is not None:
            self._kernel.stop()
            self._kernel = None
        self._turn.release()

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, None]:
        """Leave the file complete."""
        yield self._turn.acquire()
        while (save := self._next_slice()) is not None:
            save()
        if self._store is not None:
            self._store.close()
        self._turn.release()
