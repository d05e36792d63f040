"""The seats that the logs of instances tell of. PURE. Times are seconds since 1970."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from datetime import datetime

from tests.chaos.clocks import right_time
from tests.chaos.timeline import Seat

__all__ = ["seats_in"]


def _records(lines: Iterable[str]) -> Iterator[dict[str, object]]:
    for line in lines:
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:
                continue  # the process was killed while it wrote


def seats_in(
    lines: Iterable[str], instance: str, ended_at: float = math.inf, near: float | None = None
) -> Iterator[Seat]:
    """Yield the seats of one process, or of each of its workers, whose life ended at ``ended_at``.

    ``near`` is a time less than half a day away, if the clock of the log may have been whole days away from the right
    time. Seats of a worker are those of an instance with its digit.
    """
    since: dict[tuple[str, int], tuple[str, float]] = {}
    for record in _records(lines):
        event, connection = str(record.get("event", "")), record.get("connection")
        if not isinstance(connection, int) and not event.startswith("worker_ended"):
            continue
        at = datetime.fromisoformat(str(record["time"])).timestamp()
        at = at if near is None else right_time(at, near)
        if not isinstance(connection, int):
            for seat in [seat for seat in since if seat[0] == f"{instance}{record['worker']}"]:
                key, began = since.pop(seat)
                yield Seat(key, seat[0], began, at)
            continue
        seat = f"{instance}{record.get('worker', '')}", connection
        if event.startswith("binary_claimed"):
            since[seat] = str(record["server_id"]), at
        elif seat in since and event.startswith(("binary_of", "closed_a_peer")):
            key, began = since.pop(seat)
            yield Seat(key, seat[0], began, at)
    for (name, _), (key, began) in since.items():
        yield Seat(key, name, began, ended_at)
