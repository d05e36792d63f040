"""The samples of all workers as those of one relay, for the dashboard. Times are seconds.

The workers are asked each second. A sample is sent when all of them have answered, or when the next second begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from pyryrelay.admin.dashboard.feed import MAX_NEW_REFUSALS, Send
from pyryrelay.observe.refusals import MAX_RECENT
from pyryrelay.workers.admin.observed import WorkersView
from pyryrelay.workers.admin.usage import Usage
from pyryrelay.workers.merging.clusters import merge_sights
from pyryrelay.workers.merging.samples import merge_samples

__all__ = ["WorkersFeed"]


class WorkersFeed:
    """A `pyryrelay.admin.dashboard.feed.Feed`. ``wall`` is the wall clock.

    ``state`` returns what the relay does, ``usage`` what this process has used.
    """

    def __init__(
        self,
        view: WorkersView,
        address_form: Callable[[], str],
        uptime_s: Callable[[], float],
        wall: Callable[[], float],
        state: Callable[[], str],
        usage: Callable[[], Usage],
    ) -> None:
        self.uptime_s = uptime_s
        self._view = view
        self._form = address_form
        self._wall = wall
        self._state = state
        self._usage = usage
        self._before: Usage | None = None
        self._recent: deque[Mapping[str, Any]] = deque(maxlen=MAX_RECENT)
        self._send: Callable[[], None] | None = None

    @property
    def address_form(self) -> str:
        """See `pyryrelay.admin.dashboard.feed.Feed`."""
        return self._form()

    def recent(self) -> Sequence[Mapping[str, Any]]:
        """See `pyryrelay.admin.dashboard.feed.Feed`."""
        return [*self._recent]

    def take(self, send: Send, *, is_watched: bool) -> None:
        """See `pyryrelay.admin.dashboard.feed.Feed`. Refusals are kept for pages that open later, so always asked."""
        if self._send is not None:
            self._send()

        def once() -> None:
            if self._send is once:
                self._send = None
                self._complete(send)

        self._send = once
        self._view.ask_for_samples(is_watched=True, done=once, lists_instances=is_watched)

    def _complete(self, send: Send) -> None:
        samples, refusals = self._view.take(self._wall())
        refusals.sort(key=itemgetter("at"))
        self._recent.extend(refusals)
        rows = [row | self._speed(row["index"]) for row in self._view.rows()]
        sample = merge_samples(samples, self._wall(), self._state(), self._view.shared)
        usage = self._usage()
        before, self._before = self._before or usage, usage
        sample["memory_bytes"] += usage.memory_bytes
        sample["cpu"] = round(sample["cpu"] + (usage.cpu_s - before.cpu_s) / sample["elapsed_s"], 4)
        send(sample, refusals[-MAX_NEW_REFUSALS:], rows, merge_sights(one.cluster for _, one in self._view.observed()))

    def _speed(self, index: int) -> dict[str, float]:
        """Return how many messages a worker has received and sent in a second, and its share of a processor."""
        sample = dict(self._view.observed()).get(index)
        found = None if sample is None else sample.sample
        if found is None:
            return {"messages_per_s": 0.0, "cpu": 0.0}
        return {"messages_per_s": round(sum(found["messages"]) / found["elapsed_s"], 1), "cpu": found["cpu"]}
