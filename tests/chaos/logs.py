"""The seats that the logs of instances tell of. PURE. Times are seconds since 1970."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from datetime import datetime

from tests.chaos.timeline import Seat

__all__ = ["seats_in"]


def _records(lines: Iterable[str]) -> Iterator[dict[str, object]]:
    for line in lines:
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:
                continue  # the process was killed while it wrote


def seats_in(lines: Iterable[str], instance: str, ended_at: float = math.inf) -> Iterator[Seat]:
    """Yield the seats of one process, whose life ended at ``ended_at``."""
    since: dict[int, tuple[str, float]] = {}
    for record in _records(lines):
        event, connection = str(record.get("event", "")), record.get("connection")
        if not isinstance(connection, int):
            continue
        at = datetime.fromisoformat(str(record["time"])).timestamp()
        if event.startswith("binary_claimed"):
            since[connection] = str(record["server_id"]), at
        elif connection in since and event.startswith(("binary_of", "closed_a_peer")):
            key, began = since.pop(connection)
            yield Seat(key, instance, began, at)
    for key, began in since.values():
        yield Seat(key, instance, began, ended_at)
