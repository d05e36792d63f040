"""The steps of a probe."""

from __future__ import annotations

import pytest

from pyryrelay.cli.probe.steps import State, Step, Steps
from pyryrelay.protocol_options import ProbeError


def test_steps_are_timed_and_told_when_they_are_over() -> None:
    """Each step has the time between its beginning and its end, and is told once."""
    times = iter([1.0, 1.5, 2.0, 2.25])
    told: list[Step] = []
    steps = Steps(lambda: next(times), told.append)
    with steps.step("one") as step:
        step.detail = "done"
    steps.warn("two", "odd", "mend it")
    with pytest.raises(ProbeError, match="broken; mend it"), steps.step("three"):
        raise ProbeError("broken", "mend it")
    assert told == steps.taken
    assert [(step.name, step.state, step.seconds, step.detail, step.fix) for step in told] == [
        ("one", State.OK, 0.5, "done", ""),
        ("two", State.WARNING, 0.0, "odd", "mend it"),
        ("three", State.PROBLEM, 0.25, "broken", "mend it"),
    ]
    assert told[2].as_json() == {
        "name": "three",
        "state": "problem",
        "seconds": 0.25,
        "detail": "broken",
        "fix": "mend it",
    }


def test_a_step_that_is_interrupted_is_told_too() -> None:
    """Ctrl-C ends a step like any other."""
    steps = Steps(lambda: 0.0, lambda step: None)
    with pytest.raises(KeyboardInterrupt), steps.step("one"):
        raise KeyboardInterrupt
    assert len(steps.taken) == 1
