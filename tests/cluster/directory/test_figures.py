"""What the directory counts."""

from __future__ import annotations

from pyryrelay.cluster.directory.figures import OUTCOMES, QUESTIONS, Figures


def test_every_outcome_exists_from_the_start() -> None:
    """A counter that was never counted is 0, not missing."""
    figures = Figures()
    assert set(figures.asked) == {(question, outcome) for question in QUESTIONS for outcome in OUTCOMES}
    figures.count("claim", "here")
    assert figures.asked["claim", "here"] == 1
