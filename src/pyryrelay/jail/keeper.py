"""Save the jail in a file that survives a restart, and apply it in the kernel where that is wanted and allowed.

Writing the file and building a filter take too long for the reactor, so they run in a thread, one at a time.
Invariant: after `JailKeeper.stop_dropping` no socket has a filter, and after `JailKeeper.stop` the file is complete.

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
from pyryrelay.guard.jail import Changes, Sentence
from pyryrelay.jail.store import JailStore, Row, row_of, sentence_of
from pyryrelay.listen.kernel.drop import KernelDrop, KernelDropError

MAX_IN_KERNEL: Final = 4096
"""Sentences offered to the kernel's filter, the longest first; it takes as many as it has room for."""

MAX_TRANSACTIONS: Final = 100
"""Bound on the transactions of one `JailKeeper.sync`, of 200 changes each; more changes than that wait for the next."""

PAUSE_FACTOR: Final = 50
MAX_PAUSE_S: Final = 5.0
"""After a filter was built, the next build waits for this multiple of the build time, up to a bound, so that builds
use only a small part of the CPU."""


@dataclass(frozen=True, slots=True)
class KernelPolicy:
    """Which jailed networks may be dropped in the kernel: none that overlaps ``jail_exempt``.

    A key in the jail stands for one client, or for a whole /48. Keys of an earlier ``ipv6_prefix`` match no client any
    more, but as networks they would match packets, so they are left out.
    """

    jail_exempt: Sequence[Iterable[IPNetwork]] = ()
    ipv6_prefix: int = 64

    def networks(self, keys: Iterable[AddressKey]) -> list[IPNetwork]:
        """Return the networks of the keys that match a client, or a /48."""
        lengths = {4: {32}, 6: {self.ipv6_prefix, IPV6_PREFIX_BITS}}
        return [network for network in map(network_of, keys) if network.prefixlen in lengths[network.version]]


InThread = Callable[[Callable[[], Any]], Deferred[Any]]
"""Calls a function in a thread; the Deferred fires with its result."""


class JailKeeper:
    """Call `start` once, `sync` about every second, and at the end `stop_dropping`, then `stop`.

    ``warn`` is called with one line for each problem.
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
        self._lock = DeferredLock()
        self._kernel: KernelDrop | None = None
        self._in_kernel: Sequence[AddressKey] | None = None
        self._next_build_at_s = -inf
        self._policy = KernelPolicy()
        self._new_policy: KernelPolicy | None = None
        self._is_left = False
        self.on_changes: list[Callable[[Sequence[Sentence], Sequence[AddressKey]], None]] = []
        """Called by `sync` and `stop` with sentences that are new or have changed, and with keys that were released.

        Sentences that end, or give way to others, are not reported: another jail forgets them by itself.
        """

    def start(self, kernel: KernelDrop | None = None, rows: Iterable[Sequence[object]] = ()) -> None:
        """Load the sentences of the file; with ``kernel``, start to drop in the kernel, as far as that is permitted.

        ``rows`` are those of another process, from `leave`.
        """
        self._load()
        given = [sentence_of(row, self._now(), self._wall()) for row in rows]
        self._jail.restore([sentence for sentence in given if sentence is not None], self._now())
        if kernel is None:
            return
        self._kernel = kernel
        kernel.set_exempt(chain.from_iterable(self._policy.jail_exempt))
        try:
            kernel.start()
        except KernelDropError as error:
            self._report(error)

    def _load(self) -> None:
        if self._store is not None:
            self._jail.restore(self._store.load(self._now(), self._wall()), self._now())

    @inlineCallbacks
    def leave(self) -> Generator[Deferred[Any], Any, list[Row]]:
        """Save all changes and close the file, for another process that takes both over; return the sentences.

        What the kernel drops is left as it is. Nothing is saved or dropped until `take_back`.
        """
        yield self._lock.acquire()
        self._is_left = True
        self._close()
        self._lock.release()
        now, wall = self._now(), self._wall()
        return [row_of(sentence, now, wall) for sentence in self._jail.entries(now)]

    def take_back(self) -> None:
        """Go on as before `leave`, with the sentences that the file has got meanwhile."""
        self._is_left = False
        self._in_kernel = None
        self._load()

    def _close(self) -> None:
        while (changes := self._next_changes()) is not None:
            self._save(changes)()
        if self._store is not None:
            self._store.close()

    def configure(self, policy: KernelPolicy) -> None:
        """Apply this policy in the kernel from the start on, or from the next `sync` on."""
        if self._kernel is None:
            self._policy = policy
        elif policy != (self._new_policy or self._policy):
            self._new_policy = policy

    def _report(self, error: KernelDropError) -> None:
        self._warn(f"--kernel-drop: {error}")
        if self._kernel is not None:
            self._kernel.remove_failed()
            self._kernel = self._kernel if self._kernel.is_on else None

    @property
    def filters_sockets(self) -> bool:
        """Whether accepted sockets inherit a filter that must be detached."""
        return self._kernel is not None and self._kernel.filters_sockets

    def sync(self) -> Deferred[None]:
        """Bring the file and the kernel up to date; the Deferred fires when that is done."""
        return self._lock.run(self._sync)

    @inlineCallbacks
    def _sync(self) -> Generator[Deferred[Any], Any, None]:
        if self._is_left:
            return
        for _ in range(MAX_TRANSACTIONS):
            changes = self._next_changes()
            if changes is None:
                break
            if self._store is not None:
                yield self._in_thread(self._save(changes))
        if self._kernel is not None:
            yield from self._sync_kernel(self._kernel)

    def _sync_kernel(self, kernel: KernelDrop) -> Generator[Deferred[Any], Any, None]:
        began = self._now()
        if self._new_policy is not None:
            policy = self._policy = self._new_policy
            self._new_policy = None
            yield self._in_thread(lambda: kernel.set_exempt(chain.from_iterable(policy.jail_exempt)))
            self._in_kernel = None
        keys = [sentence.key for sentence in self._jail.longest(began, MAX_IN_KERNEL)]
        applied = self._in_kernel
        # Additions can wait, but a client that was released must not be dropped.
        if keys == applied or (applied is not None and began < self._next_build_at_s and set(applied) <= set(keys)):
            return
        try:
            yield self._in_thread(lambda: kernel.update(self._policy.networks(keys)))
        except KernelDropError as error:
            self._report(error)
        self._in_kernel = keys
        ended = self._now()
        self._next_build_at_s = ended + min(MAX_PAUSE_S, PAUSE_FACTOR * (ended - began))

    def _next_changes(self) -> Changes | None:
        """Return some of the changes, after reporting them; None if there are none."""
        changes, released = self._jail.changes(), self._jail.released()
        if not (changes.kept or changes.gone):
            return None
        if changes.kept or released:
            for report in self.on_changes:
                report(changes.kept, released)
        return changes

    def _save(self, changes: Changes) -> Callable[[], object]:
        """Return a function that saves changes."""
        store, now, wall = self._store, self._now(), self._wall()
        return lambda: None if store is None else store.save(changes.kept, changes.gone, now, wall)

    @inlineCallbacks
    def stop_dropping(self) -> Generator[Deferred[Any], Any, None]:
        """Remove all filters. Call it before the sockets are closed: an inherited socket outlives this process."""
        yield self._lock.acquire()
        if self._kernel is not None and not self._is_left:
            self._kernel.stop()
        self._kernel = None
        self._lock.release()

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, None]:
        """Save all changes, and close the file."""
        yield self._lock.acquire()
        if not self._is_left:
            self._close()
        self._lock.release()
