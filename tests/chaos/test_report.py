"""What people read, and which plans a command line chooses."""

from __future__ import annotations

import pytest
from tests.chaos import driver
from tests.chaos.__main__ import NO_VERDICT, _parser, chosen, main
from tests.chaos.faults import KINDS
from tests.chaos.lateness.late import Late
from tests.chaos.plan import GATE, PLANS, Plan
from tests.chaos.report import INVARIANTS, TIMED, Lateness, Report, summary
from tests.chaos.timeline import FAULTS as BY_FAULTS
from tests.chaos.timeline import SHORT, Fault, Overlap

FAULTS = (Fault("kill", "a", 1.0, 3.0), Fault("kill", "b", 1.0, 2.0), Fault("stop", "a", 4.0, 5.0))


def test_a_report_tells_faults_and_invariants() -> None:
    """Each kind with its number and length; each invariant with what did not hold."""
    report = Report(Plan(seconds=5.0, seed=9), 7, FAULTS, [(Overlap("x", ("a", "b"), 1.0, 2.5), "")], {"reach": ["no"]})
    text = str(report)
    assert "3 faults, 7 seats, 1 overlaps, longest 1.50 s" in text
    assert "kill             2 x,    3.0 s" in text
    assert text.count("ok     ") == len(INVARIANTS) - 1
    assert f"FAILED {INVARIANTS['reach']}\n          no" in text
    assert "FAILED: reach" in summary([report], 9)
    assert "--seed 9" in summary([report], 9)


WELL, BUSY = Lateness((), 36.0, 3600.0), Lateness((Late("redis", 5.0, 5.6), Late("redis", 7.0, 7.5)), 36.1, 3600.0)
PLAN = Plan(seconds=3600.0)


def test_a_busy_machine_gives_no_verdict() -> None:
    """What depends on time is not judged then; the rest is."""
    for invariant in INVARIANTS:
        report = Report(PLAN, problems={invariant: ["no"]}, lateness=BUSY)
        is_judged = invariant == "holders" or invariant not in TIMED
        assert (report.failed == [invariant]) is is_judged
        assert report.has_verdict is is_judged
        assert Report(PLAN, problems={invariant: ["no"]}, lateness=WELL).failed == [invariant]
    assert Report(PLAN, lateness=WELL).has_verdict
    assert not Report(PLAN, lateness=BUSY).has_verdict


def test_people_see_what_was_excused_and_why() -> None:
    """Overlaps of a late machine each, with the sum; and that it was too busy, in a line that is not "ok"."""
    overlap = Overlap("x", ("a", "b"), 36_001.0, 36_002.5)
    judged = [(overlap, "redis late for 0.60 s"), (overlap, BY_FAULTS), (overlap, SHORT), (overlap, "")]
    text = str(Report(PLAN, judged=judged, lateness=BUSY))
    assert "overlaps excused by faults: 1, 1.5 s" in text
    assert "overlaps excused because the machine was late: 1, 1.5 s" in text
    assert "x at a and b for 1.50 s at 10:00:01: redis late for 0.60 s" in text
    assert "redis 2 x, 1.1 s, longest 0.60 s at 00:00:05" in text
    assert "36.1 s of 3600 s, 1.00%" in text
    assert text.count("unsure ") == len(TIMED)
    assert "NO VERDICT: the machine was too busy" in text
    for lateness, problems, ending in (
        (WELL, {}, "ok"),
        (BUSY, {}, "NO VERDICT: the machine was too busy, 36.1 s"),
        (BUSY, {"pairs": ["no"]}, "FAILED: pairs; NO VERDICT: the machine was too busy, 36.1 s"),
    ):
        assert summary([Report(PLAN, problems=problems, lateness=lateness)], 9).splitlines()[2].endswith(f" {ending}")
    assert "NO VERDICT" not in str(Report(PLAN, lateness=WELL))


@pytest.mark.parametrize(
    ("reports", "code"),
    [
        ([Report(PLAN, lateness=WELL)], 0),
        ([Report(PLAN, lateness=WELL), Report(PLAN, lateness=BUSY)], NO_VERDICT),
        ([Report(PLAN, lateness=BUSY), Report(PLAN, problems={"pairs": ["no"]})], 1),
        ([Report(PLAN, problems={"holders": ["no"]}, lateness=BUSY)], 1),
    ],
)
def test_the_exit_code_tells_failures_no_verdict_and_success_apart(
    reports: list[Report], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure counts more than that another plan cannot be judged."""
    left = iter(reports)
    monkeypatch.setattr(driver, "run", lambda plan, folder: next(left))
    assert main(["--plan", *[plan.name for plan in PLANS[: len(reports)]], "--seconds", "1"]) == code


def test_plans_share_the_time_and_keep_their_seeds() -> None:
    """A plan that is run alone has the seed that it has among all, so its run can be repeated."""
    everything = chosen(_parser().parse_args(["--seed", "5"]))
    assert sum(plan.seconds for plan in everything) == 600.0
    (one,) = chosen(_parser().parse_args(["--seed", "5", "--plan", "network", "--seconds", "10", "--faults", "loss"]))
    assert (one.seconds, one.faults) == (10.0, ("loss",))
    (soak,) = chosen(_parser().parse_args(["--soak", "--seconds", "60"]))
    assert (soak.name, soak.seconds, soak.instances, soak.survivors, soak.share) == ("soak", 60.0, 3, 2, 0.0)
    (soak,) = chosen(_parser().parse_args(["--soak", "--instances", "2", "--share", "0.4"]))
    assert (soak.instances, soak.survivors, soak.share) == (2, 1, 0.4)
    assert one.seed == next(plan.seed for plan in everything if plan.name == "network")


def test_all_kinds_of_faults_are_in_some_plan() -> None:
    """And there are no others."""
    assert {fault for plan in (*PLANS, *GATE) for fault in plan.faults} == set(KINDS)
    steady = [plan.name for plan in PLANS if plan.is_steady]
    assert steady == ["affinity"]
