"""The workers of a relay for people: a row for each, from ``GET /status``. PURE.

A relay of one process has none. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pyryrelay.cli.figures import amount, duration, size

__all__ = ["WORKER_TITLES", "worker_rows", "workers_of", "workers_ready"]

WORKER_TITLES: Final = ("WORKER", "PID", "STATE", "UPTIME", "OPEN", "MEMORY", "CPU", "RESTARTS")


def workers_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the objects of the workers; those that another version writes differently are left out."""
    found = body.get("workers")
    rows = found if isinstance(found, list) else []
    return [row for row in rows if isinstance(row, Mapping) and isinstance(row.get("index"), int)]


def workers_ready(body: Mapping[str, Any]) -> str:
    """Return in words how many workers serve, such as ``, 2 of 3 workers serve``; nothing if there are none."""
    workers = workers_of(body)
    serving = sum(worker.get("state") in ("running", "draining") for worker in workers)
    return f", {serving} of {len(workers)} workers serve" if workers else ""


def worker_rows(body: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Sequence[Sequence[str]]:
    """Return a row for each worker, under `WORKER_TITLES`.

    The processor time is that since its start; with an answer of ``before``, it is the share of a processor since.
    """
    old = {} if before is None else {(one["index"], one.get("boot")): one for one in workers_of(before)}
    return [_row(worker, before is not None, old) for worker in workers_of(body)]


def _row(worker: Mapping[str, Any], is_live: bool, before: Mapping[Any, Mapping[str, Any]]) -> Sequence[str]:
    uptime_s = _number(worker, "uptime_s")
    return (
        str(worker["index"]),
        str(worker.get("pid") or "-"),
        str(worker.get("state", "?")),
        duration(uptime_s) if uptime_s else "-",
        amount(_number(worker, "connections")),
        size(_number(worker, "memory_bytes")),
        _share(worker, before) if is_live else duration(_number(worker, "cpu_s")),
        amount(_number(worker, "restarts")),
    )


def _share(worker: Mapping[str, Any], before: Mapping[Any, Mapping[str, Any]]) -> str:
    old = before.get((worker["index"], worker.get("boot")))
    passed_s = 0.0 if old is None else _number(worker, "uptime_s") - _number(old, "uptime_s")
    if old is None or passed_s <= 0:
        return "-"
    return f"{max(0.0, _number(worker, 'cpu_s') - _number(old, 'cpu_s')) / passed_s:.0%}"


def _number(worker: Mapping[str, Any], key: str) -> float:
    value = worker.get(key)
    return float(value) if isinstance(value, int | float) else 0.0
