"""When memory has grown."""

from __future__ import annotations

import pytest
from tests.chaos.memory import MIN_S, Sample, course, growth

MB = 1_000_000


@pytest.mark.parametrize(
    ("sizes", "seconds", "has_grown"),
    [
        ([50, 60, 60, 60], MIN_S, False),
        ([50, 60, 65, 69], MIN_S, False),
        ([50, 60, 65, 70], MIN_S, True),
        ([50, 60, 65, 70], MIN_S - 1, False),
    ],
)
def test_the_second_and_the_last_quarter_are_compared(sizes: list[int], seconds: float, has_grown: bool) -> None:
    """The first one has the start; short runs tell nothing."""
    samples = [Sample(number * seconds / 39, sizes[number // 10] * MB) for number in range(40)]
    early, late, problem = growth(samples)
    assert (early, late) == (sizes[1] * MB, sizes[3] * MB)
    assert bool(problem) is has_grown


def test_people_see_the_course() -> None:
    """The medians of equal parts of the time."""
    samples = [Sample(float(at), (50 + at) * MB, 40 + at % 2) for at in range(12)]
    assert course(samples, 4) == "51.0 54.0 57.0 60.0 MB, 40 41 40 41 descriptors"
    assert course(samples[:1]) == "50.0 MB, 40 descriptors"
