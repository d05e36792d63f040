"""What the dashboard is sent each second: the difference between two snapshots, as JSON.

Counters become numbers of events since the sample before, and those that are 0 are left out. Times are seconds, sizes
are bytes; ``at`` is the wall clock, in seconds since 1970.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from pyryrelay.observe.sampling import Snapshot
from pyryrelay.protocol import Figure

__all__ = ["HISTORY", "History", "difference", "encode", "event"]

HISTORY: Final = 900
"""How many samples are kept: 15 minutes."""


def difference(before: Snapshot, after: Snapshot, at_s: float, state: str) -> dict[str, Any]:
    """Return what has happened between two snapshots, and the gauges of the second."""
    elapsed_s = max(1e-3, after.at_s - before.at_s)
    decided = after.decisions - before.decisions
    return {
        "at": round(at_s, 1),
        "elapsed_s": round(elapsed_s, 3),
        "state": state,
        "connections": {route: number for route, number in after.connections.items() if number},
        "handshakes": after.handshakes,
        "admitted": _counted(before.admitted, after.admitted),
        "refused": _counted(before.refused, after.refused),
        "messages": [new - old for old, new in zip(before.messages, after.messages, strict=True)],
        "bytes": [new - old for old, new in zip(before.bytes, after.bytes, strict=True)],
        "tracked": after.tracked,
        "jailed": after.jailed,
        "memory_bytes": after.memory_bytes,
        "cpu": round((after.cpu_s - before.cpu_s) / elapsed_s, 4),
        "lag_s": round(after.reactor_lag_s, 5),
        "decision_s": round((after.decisions_s - before.decisions_s) / decided, 7) if decided > 0 else None,
        "protocols": {
            name: _figures(before.protocols.get(name, {}), figures) for name, figures in after.protocols.items()
        },
    }


def _counted(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}


def _figures(before: Mapping[str, Figure], after: Mapping[str, Figure]) -> dict[str, Figure]:
    """Return gauges as they are, and what was added to totals."""
    found: dict[str, Figure] = {}
    for name, value in after.items():
        if not name.partition(".")[0].endswith("_total") or isinstance(value, str):
            found[name] = value
            continue
        old = before.get(name, 0)
        if not isinstance(old, str) and value != old:
            found[name] = value - old
    return found


def encode(body: object) -> bytes:
    """Return JSON in as few bytes as possible."""
    return json.dumps(body, separators=(",", ":")).encode("ascii")


def event(name: str, body: bytes) -> bytes:
    """Return one event of ``text/event-stream`` (HTML, section 9.2). The body has no line breaks, as JSON has none."""
    return b"event: %s\ndata: %s\n\n" % (name.encode("ascii"), body)


class History:
    """The last events, each with a number. It keeps at most ``most``."""

    def __init__(self, most: int = HISTORY) -> None:
        self._events: deque[bytes] = deque(maxlen=most)
        self._end = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._events)

    @property
    def start(self) -> int:
        """The number of the oldest event."""
        return self._end - len(self._events)

    @property
    def end(self) -> int:
        """The number of the next event."""
        return self._end

    def add(self, one: bytes) -> None:
        """Add an event."""
        self._events.append(one)
        self._end += 1

    def after(self, number: int, most: int) -> tuple[bytes, int]:
        """Return at most ``most`` events from ``number`` on, joined, and the number of the one behind them.

        Events that are gone are left out.
        """
        first = max(number, self.start)
        found = list(islice(self._events, first - self.start, first - self.start + most))
        return b"".join(found), first + len(found)
