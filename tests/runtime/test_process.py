"""What the relay does to its own process."""

from __future__ import annotations

import gc
from threading import Thread, current_thread
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.capture import captured
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pyryrelay.runtime.process import TELL_S, YOUNGEST_OBJECTS, Threads, tune_gc, tune_malloc, why_not_started


def test_what_was_there_at_the_start_is_not_collected_again() -> None:
    """Objects of the start are not examined again, and the collector runs less often."""
    threshold = gc.get_threshold()
    gc.unfreeze()  # What other tests in this process have frozen.
    before = len(gc.get_objects())
    try:
        tune_gc()
        assert gc.get_freeze_count() > 0
        assert len(gc.get_objects()) < before / 10
        assert gc.get_threshold() == (YOUNGEST_OBJECTS, *threshold[1:])
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)


def test_large_buffers_are_kept_where_the_c_library_can() -> None:
    """glibc is told how much freed memory to keep and from which size on to map it; other libraries are not."""
    told: list[tuple[int, int]] = []

    def mallopt(option: int, value: int) -> int:
        told.append((option, value))
        return 1

    assert tune_malloc(SimpleNamespace(mallopt=mallopt))
    assert told == [(-3, 1 << 20), (-1, 1 << 24)]
    assert not tune_malloc(SimpleNamespace(mallopt=lambda option, value: 0))
    assert not tune_malloc(SimpleNamespace())


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(12, "No memory"),
            "could not be started: No memory (raise the limit of memory: ulimit -v, MemoryMax=)",
        ),
        (OSError(13, "Permission denied"), "could not be started: Permission denied"),
        (OSError("odd"), "could not be started: odd"),
    ],
)
def test_why_a_process_was_not_started(error: OSError, line: str) -> None:
    """Where a limit is reached, the line says which one to raise."""
    assert why_not_started(error) == line


class FullMachine(Clock):
    """A reactor of which no thread can be started."""

    def __init__(self) -> None:
        super().__init__()
        self.threads = [current_thread()]
        self.tried = 0

    def getThreadPool(self) -> Any:  # noqa: N802
        """Return its threads."""
        return self

    def callInThreadWithCallback(self, *arguments: object) -> None:  # noqa: N802
        """Fail as `threading` does."""
        self.threads.append(Thread())
        self.tried += 1
        raise RuntimeError("can't start new thread")


def test_calls_are_made_without_a_thread_if_need_be() -> None:
    """Nothing that a caller wants done is left out; a line says so once a minute."""
    machine = FullMachine()
    threads = Threads(machine)
    outcomes: list[object] = []

    def fail() -> None:
        raise ValueError("no file")

    with captured() as log:
        for call in (lambda: 1, lambda: 2, fail):
            made: Deferred[object] = threads.call(call)
            made.addBoth(lambda got: outcomes.append(getattr(got, "value", got)))
        assert len(log.texts) == 1
        machine.advance(TELL_S)
        threads.call(lambda: 3).addBoth(outcomes.append)
    assert outcomes[:2] == [1, 2]
    assert str(outcomes[2]) == "no file"
    assert outcomes[3] == 3
    assert machine.tried == 4
    assert machine.threads == [current_thread()]
    assert (
        log.texts
        == [
            "no thread can be started, so files delay clients: "
            "raise the limit of processes: ulimit -u, LimitNPROC=, TasksMax="
        ]
        * 2
    )
