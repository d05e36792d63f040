"""The seats that logs tell of."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

from tests.chaos.logs import seats_in
from tests.chaos.timeline import Seat


def line(at: float, event: str, connection: int | None, key: str = "x", **more: object) -> str:
    """Return a line of a log."""
    time = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"time": time, "event": event, "server_id": key, "connection": connection} | more)


def test_a_seat_lasts_until_its_binary_is_gone_or_closed() -> None:
    """Connections that never claimed are none, and those that are left end with the process."""
    lines = [
        "Traceback?",
        '{"time": "cut o',
        json.dumps({"time": "2026-01-01T00:00:00Z", "event": "shutting_down"}),
        line(1.0, "binary_claimed_version_from", 1),
        line(2.0, "closed_a_peer_of", 2),
        line(3.0, "binary_of_gone", 1),
        line(4.0, "binary_claimed_version_from", 3, "y"),
        line(5.0, "binary_claimed_version_from", 4, "z"),
        line(6.0, "closed_a_peer_of", 4, "z"),
    ]
    assert list(seats_in(lines, "a", 9.0)) == [
        Seat("x", "a", 1.0, 3.0),
        Seat("z", "a", 5.0, 6.0),
        Seat("y", "a", 4.0, 9.0),
    ]
    assert list(seats_in(lines[3:4], "a")) == [Seat("x", "a", 1.0, math.inf)]


def test_seats_of_workers_end_with_their_worker() -> None:
    """Each worker counts its own connections, and is an instance."""
    lines = [
        line(1.0, "binary_claimed_version_from", 1, "x", worker=0),
        line(2.0, "binary_claimed_version_from", 1, "y", worker=1),
        line(3.0, "worker_ended_process_another", None, worker=0),
        line(4.0, "binary_of_gone", 1, "y", worker=1),
    ]
    assert list(seats_in(lines, "a")) == [Seat("x", "a0", 1.0, 3.0), Seat("y", "a1", 2.0, 4.0)]


def test_times_of_a_clock_that_was_days_away_are_set_right() -> None:
    """Whatever the clock said, the seat has the right time."""
    lines = [
        line(100_000.0 + 86_400.0, "binary_claimed_version_from", 1),
        line(100_005.0 - 86_400.0, "binary_of_gone", 1),
    ]
    assert list(seats_in(lines, "a", near=99_990.0)) == [Seat("x", "a", 100_000.0, 100_005.0)]
