"""The workers of a relay for people."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.status import status, workers

from pyryrelay.cli.worker_rows import WORKER_TITLES, worker_rows, workers_of, workers_ready


def test_a_row_for_each_worker() -> None:
    """One that is down has no process and no uptime."""
    rows = worker_rows(status(workers=workers()))
    assert {len(row) for row in rows} == {len(WORKER_TITLES)}
    assert list(rows) == [
        ("0", "4243", "running", "1d 1h", "60", "38.1 MiB", "1m", "0"),
        ("1", "-", "down", "-", "0", "0 B", "1s", "3"),
    ]


def test_shares_of_a_processor() -> None:
    """Between two answers; a worker that was started again has none at first."""
    before, after = status(workers=workers()), status(workers=workers())
    after["workers"][0] |= {"uptime_s": 90_002.0, "cpu_s": 61.0}
    after["workers"][1] |= {"boot": 9, "uptime_s": 1.0, "state": "running", "pid": 5}
    assert [row[6] for row in worker_rows(after, before)] == ["50%", "-"]
    assert [row[6] for row in worker_rows(before, before)] == ["-", "-"]


def test_how_many_serve() -> None:
    """The headline tells; a relay of one process has no workers."""
    assert workers_ready(status(workers=workers())) == ", 1 of 2 workers serve"
    assert workers_ready(status()) == ""
    assert worker_rows(status()) == []


@pytest.mark.parametrize("found", ["text", {"index": 0}, [1, {"pid": 3}, {"index": "0"}], None])
def test_another_version(found: Any) -> None:
    """What is not understood is left out."""
    assert workers_of({"workers": found}) == []
    (row,) = worker_rows({"workers": [{"index": 7}]})
    assert row == ("7", "-", "?", "-", "0", "0 B", "1s", "0")
