"""What people read, and which plans a command line chooses."""

from __future__ import annotations

from tests.chaos.__main__ import _parser, chosen
from tests.chaos.faults import KINDS
from tests.chaos.plan import GATE, PLANS, Plan
from tests.chaos.report import INVARIANTS, Report, summary
from tests.chaos.timeline import Fault, Overlap

FAULTS = (Fault("kill", "a", 1.0, 3.0), Fault("kill", "b", 1.0, 2.0), Fault("stop", "a", 4.0, 5.0))


def test_a_report_tells_faults_and_invariants() -> None:
    """Each kind with its number and length; each invariant with what did not hold."""
    report = Report(Plan(seconds=5.0, seed=9), 7, FAULTS, [Overlap("x", ("a", "b"), 1.0, 2.5)], {"reach": ["no"]})
    text = str(report)
    assert "3 faults, 7 seats, 1 overlaps, longest 1.50 s" in text
    assert "kill             2 x,    3.0 s" in text
    assert text.count("ok     ") == len(INVARIANTS) - 1
    assert f"FAILED {INVARIANTS['reach']}\n          no" in text
    assert "FAILED: reach" in summary([report], 9)
    assert "--seed 9" in summary([report], 9)


def test_plans_share_the_time_and_keep_their_seeds() -> None:
    """A plan that is run alone has the seed that it has among all, so its run can be repeated."""
    everything = chosen(_parser().parse_args(["--seed", "5"]))
    assert sum(plan.seconds for plan in everything) == 600.0
    (one,) = chosen(_parser().parse_args(["--seed", "5", "--plan", "network", "--seconds", "10", "--faults", "loss"]))
    assert (one.seconds, one.faults) == (10.0, ("loss",))
    (soak,) = chosen(_parser().parse_args(["--soak", "--seconds", "60"]))
    assert (soak.name, soak.seconds) == ("soak", 60.0)
    assert one.seed == next(plan.seed for plan in everything if plan.name == "network")


def test_all_kinds_of_faults_are_in_some_plan() -> None:
    """And there are no others."""
    assert {fault for plan in (*PLANS, *GATE) for fault in plan.faults} == set(KINDS)
    steady = [plan.name for plan in PLANS if plan.is_steady]
    assert steady == ["affinity"]
