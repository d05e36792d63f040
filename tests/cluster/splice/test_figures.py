"""What is counted about spliced connections."""

from __future__ import annotations

from pyryrelay.cluster.splice.figures import ArrivalProblem, Figures
from pyryrelay.cluster.splice.ticket import TicketProblem


def test_every_problem_exists_from_the_start() -> None:
    """A counter that was never counted is 0, not missing."""
    assert Figures().cut_off == dict.fromkeys((*ArrivalProblem, *TicketProblem), 0)
