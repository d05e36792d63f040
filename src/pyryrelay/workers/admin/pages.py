"""``/healthz``, ``/readyz`` and ``/metrics`` of a relay with several workers. Times are seconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred

from pyryrelay import __version__
from pyryrelay.admin.site import Answered
from pyryrelay.metric_families import gauge
from pyryrelay.observe.health import json_page
from pyryrelay.observe.metrics import CONTENT_TYPE, exposition
from pyryrelay.protocol import Page
from pyryrelay.workers.admin.observed import READ_S, WorkersView
from pyryrelay.workers.merging.expositions import WORKER_LABEL, merge_expositions
from pyryrelay.workers.merging.health import DEGRADED, merge_health, merge_readiness

__all__ = ["WorkersCollector", "WorkersPages"]


class WorkersCollector(Collector):
    """What the supervisor knows about its workers. Call `scraped` before each scrape."""

    def __init__(self, view: WorkersView) -> None:
        self._view = view
        self._up: Collection[int] = ()
        self._missed = dict.fromkeys(range(view.workers.count), 0)

    def scraped(self, answers: Collection[int]) -> None:
        """Note the indexes of the workers whose metrics the scrape has."""
        self._up = answers
        for index in self._missed:
            self._missed[index] += index not in answers

    def collect(self) -> Iterator[Metric]:
        """Return the metric families of one scrape."""
        view = self._view
        yield gauge("pyryrelay_workers", "Workers that there are to be.", view.workers.count)
        yield gauge("pyryrelay_workers_ready", "Workers that are ready and answer.", len(view.serving))
        up = GaugeMetricFamily(
            "pyryrelay_worker_up",
            "Whether this scrape has the metrics of a worker; 0 if it is down, or does not answer in time.",
            labels=[WORKER_LABEL],
        )
        missed = CounterMetricFamily(
            "pyryrelay_worker_missed_scrapes",
            "Scrapes that lacked the metrics of a worker, because it was down, or did not answer in time.",
            labels=[WORKER_LABEL],
        )
        restarts = CounterMetricFamily(
            "pyryrelay_worker_restarts",
            "Workers that ended without having been told to, and were started again.",
            labels=[WORKER_LABEL],
        )
        for index, count in view.restarts.items():
            up.add_metric([str(index)], index in self._up)
            missed.add_metric([str(index)], self._missed[index])
            restarts.add_metric([str(index)], count)
        yield up
        yield missed
        yield restarts


class _Uptime(Collector):
    """How long the relay runs: the same family as that of one process, and of each worker."""

    def __init__(self, uptime_s: Callable[[], float]) -> None:
        self._uptime_s = uptime_s

    def collect(self) -> Iterator[Metric]:
        """Return the metric families of one scrape."""
        yield gauge("pyryrelay_uptime_seconds", "Seconds since the start.", self._uptime_s())


class WorkersPages:
    """The pages. ``collectors`` are those of the supervisor itself, ``is_draining`` tells whether the relay ends."""

    def __init__(
        self,
        view: WorkersView,
        collectors: Iterable[Collector],
        uptime_s: Callable[[], float],
        is_draining: Callable[[], bool],
    ) -> None:
        self._view = view
        self._uptime_s = uptime_s
        self._is_draining = is_draining
        self._workers = WorkersCollector(view)
        self._scrape = exposition([self._workers, _Uptime(uptime_s), *collectors])

    def all(self) -> Mapping[str, Callable[[], Answered]]:
        """Return the pages by path."""
        return {"/healthz": self.health, "/readyz": self.ready, "/metrics": self.metrics}

    def health(self) -> Deferred[Page]:
        """Return what all workers say together; 503 only if none of them can serve, or the relay drains."""
        return self._view.ask_all("health", READ_S).addCallback(self._health_page)

    def _health_page(self, answers: Mapping[int, Mapping[str, Any]]) -> Page:
        before = [one.health for index, one in self._view.observed() if index not in answers and one.health]
        # A worker that does not answer does not serve, but what it holds is still there.
        silent = [health | {"status": "silent"} for health in map(dict, before)]
        found = merge_health(
            [*answers.values(), *silent],
            count=self._view.workers.count,
            version=__version__,
            uptime_s=self._uptime_s(),
            is_draining=self._is_draining(),
            shared=[name for names in self._view.shared.values() for name in names],
        )
        return json_page(found.status, found.body)

    def ready(self) -> Page:
        """Return whether new connections should come to this host; asks nobody."""
        found = merge_readiness(
            len(self._view.serving),
            count=self._view.workers.count,
            version=__version__,
            is_draining=self._is_draining(),
            is_degraded=any(one.health.get(DEGRADED) for _, one in self._view.observed()),
        )
        return json_page(found.status, found.body)

    def metrics(self) -> Deferred[Page]:
        """Return the metrics of all workers that answer, and those of this process."""

        def page(answers: Mapping[int, str]) -> Page:
            self._workers.scraped(answers)
            body = merge_expositions(answers, self._scrape().decode())
            return Page(200, (("Content-Type", CONTENT_TYPE),), body.encode())

        return self._view.ask_all("metrics", READ_S).addCallback(page)
