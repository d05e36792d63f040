"""One jail for all workers: what one of them decides holds in all of them, in the file and in the kernel.

Each worker has a jail of its own, and counts strikes alone, since all connections of an address are its. About every
second it tells its supervisor which sentences are new. The supervisor has a jail, too, which is kept in the file and in
the kernel, and tells all workers. So a worker that is killed takes along what it decided in its last second, and no
more; one that starts has all sentences before it accepts.

Sentences that end are not told about: each jail forgets them by itself. The last word on a key counts, in the order in
which the supervisor hears of them.

In a cluster, each worker tells the other relays what it has decided. What an operator decides at the supervisor, one of
the workers tells them: the supervisor asks the first one that is ready, and keeps it until there is one.

Messages have the rows of `pyryrelay.jail.store`, and texts of networks. Times are
seconds of a monotonic clock; ``wall`` is the clock of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred

from pyryrelay.config.derive import gate_config, never_dropped
from pyryrelay.config.settings import SharedSettings
from pyryrelay.guard import AddressKey, CidrSet, Jail, JailPolicy, News, address_key, network_of
from pyryrelay.guard.jail import Sentence, origin_of_worker
from pyryrelay.jail.keeper import JailKeeper, KernelPolicy
from pyryrelay.jail.store import Row, row_of, sentence_of
from pyryrelay.logger import ErrbackLogger
from pyryrelay.workers.rpc import Rpc

__all__ = ["MESSAGE", "NEWS", "JailOfSupervisor", "JailOfWorker"]

_log = ErrbackLogger(namespace="pyryrelay")
_log_failure: Final = _log.errback("The jail could not be saved or applied")

MESSAGE: Final = "sentences"
NEWS: Final = "jail_news"
"""What other relays of the cluster are to be told: sentences, and those that were released."""


class _Messages:
    """Sentences as messages have them, and back."""

    def __init__(self, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self.now = now
        self.wall = wall

    def written(self, kept: Iterable[Sentence], released: Iterable[AddressKey]) -> dict[str, object]:
        """Return the body of a message."""
        now, wall = self.now(), self.wall()
        return {
            "kept": [row_of(sentence, now, wall) for sentence in kept],
            "released": [str(network_of(key)) for key in released],
        }

    def read(self, body: Mapping[str, Any]) -> tuple[list[Sentence], list[AddressKey]]:
        """Return what a message says. What cannot be understood is left out."""
        now, wall = self.now(), self.wall()
        kept = [sentence_of(row, now, wall) for row in _rows(body.get("kept"))]
        released = [_key(text) for text in _texts(body.get("released"))]
        return [one for one in kept if one is not None], [key for key in released if key is not None]

    def written_news(self, news: Sequence[News]) -> dict[str, object]:
        """Return the body of a message about what other relays are to be told."""
        now, wall = self.now(), self.wall()
        return {
            "kept": [row_of(each.sentence, now, wall) for each in news if each.sentence is not None],
            "released": [row_of(each.released, now, wall) for each in news if each.released is not None],
        }

    def read_news(self, body: Mapping[str, Any]) -> list[News]:
        """Return what such a message says. What cannot be understood is left out."""
        now, wall = self.now(), self.wall()
        released = [sentence_of(row, now, wall) for row in _rows(body.get("released"))]
        kept = [sentence_of(row, now, wall) for row in _rows(body.get("kept"))]
        return [
            *(News(one.key, None, one) for one in released if one is not None),
            *(News(one.key, one) for one in kept if one is not None),
        ]


def _rows(found: object) -> list[Sequence[object]]:
    return [row for row in found if isinstance(row, list | tuple)] if isinstance(found, list) else []


def _texts(found: object) -> list[str]:
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _key(text: str) -> AddressKey | None:
    try:
        network = ip_network(text)
    except ValueError:
        return None
    return address_key(network.network_address, network.prefixlen)


class JailOfWorker:
    """Connects the jail of a worker, which ``keeper`` keeps, with the supervisor."""

    def __init__(
        self, jail: Jail, keeper: JailKeeper, rpc: Rpc, now: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._jail = jail
        self._rpc = rpc
        self._messages = _Messages(now, wall)
        keeper.on_changes.append(self._tell)
        rpc.on(MESSAGE, self._received)
        rpc.on(NEWS, self._asked_to_tell)

    def _tell(self, kept: Sequence[Sentence], released: Sequence[AddressKey]) -> None:
        self._rpc.tell(MESSAGE, **self._messages.written(kept, released))

    def _received(self, body: Mapping[str, Any]) -> None:
        kept, released = self._messages.read(body)
        self._jail.adopt(kept, released, self._messages.now())

    def _asked_to_tell(self, body: Mapping[str, Any]) -> None:
        self._jail.retell(self._messages.read_news(body))

    def arrived(self) -> Deferred[None]:
        """Return a Deferred that fires when the supervisor has everything that it was told, or is gone."""
        # Messages are handled in order, so the answer to another one comes behind them.
        asked = self._rpc.ask(MESSAGE, **self._messages.written((), ()))
        return asked.addCallbacks(lambda _: None, lambda _: None)


class Workers(Protocol):
    """What is used of a `Supervisor`."""

    def tell_all(self, name: str, /, **body: object) -> None:
        """Send a message to all workers that are ready."""

    def tell(self, index: int, name: str, /, **body: object) -> None:
        """Send a message to one worker that is ready."""

    @property
    def indexes(self) -> Sequence[int]:
        """The indexes of the workers that are ready."""

    def on(self, name: str, handler: Callable[[int, Mapping[str, Any]], Any]) -> None:
        """Have messages of that name handled."""


class JailOfSupervisor:
    """The jail of all workers. ``keeper`` keeps it in the file and the kernel; see `JailKeeper` for what to call.

    Call `sweep` several times a second. If the relay is in a cluster, call `tell_cluster` about once a second.
    """

    def __init__(
        self,
        jail: Jail,
        keeper: JailKeeper,
        workers: Workers,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.jail = jail
        self.keeper = keeper
        self._workers = workers
        self._messages = _Messages(now, wall)
        self._is_clustered = False
        keeper.on_changes.append(self._tell)
        workers.on(MESSAGE, self._received)

    def configure(self, settings: SharedSettings, allow: CidrSet) -> None:
        """Follow the settings, with the addresses that are allowed by them and by the files of lists together."""
        if settings.cluster and not self._is_clustered:
            self._is_clustered = True
            self.jail.keep_news()
        policy = gate_config(settings, allow, CidrSet()).jail
        self.jail.configure(JailPolicy() if policy is None else policy, self._messages.now())
        self.keeper.configure(KernelPolicy(never_dropped(settings, allow), settings.ipv6_prefix))

    def sweep(self) -> None:
        """Forget sentences that no longer matter."""
        self.jail.sweep(self._messages.now())

    def rows(self) -> list[Row]:
        """Return all sentences, for a worker that starts; see `JailKeeper.start`."""
        now, wall = self._messages.now(), self._messages.wall()
        return [row_of(sentence, now, wall) for sentence in self.jail.entries(now)]

    def spread(self, released: str | None = None) -> None:
        """Tell the workers, the file and the kernel now about what has changed here, such as a ban by hand.

        ``released`` is a network that only a worker had jailed, which has released it: other relays are to be told.
        """
        self.keeper.sync().addErrback(_log_failure)
        key = None if released is None else _key(released)
        if key is not None and self._is_clustered:
            until_s = self._messages.now() + self.jail.policy.longest_s
            self.jail.retell([News(key, None, Sentence(key, until_s, 1))])
        self.tell_cluster()

    def tell_cluster(self) -> None:
        """Have a worker tell other relays what was decided here, if one is ready."""
        for index in list(self._workers.indexes)[:1]:
            while news := self.jail.news():
                self._workers.tell(index, NEWS, **self._messages.written_news(news))

    def _tell(self, kept: Sequence[Sentence], released: Sequence[AddressKey]) -> None:
        self._workers.tell_all(MESSAGE, **self._messages.written(kept, released))

    def _received(self, index: int, body: Mapping[str, Any]) -> None:
        kept, released = self._messages.read(body)
        # What an operator decided is nobody's own.
        named = [one._replace(origin=origin_of_worker(index)) if one.times and not one.origin else one for one in kept]
        self.jail.adopt(named, released, self._messages.now(), note=True)
        if kept or released:
            self.spread()
