"""The command line of the chaos driver: run all plans, or one, and print what they have shown. Times are seconds."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tests.chaos import driver
from tests.chaos.faults import KINDS
from tests.chaos.plan import PLANS, SOAK, Plan
from tests.chaos.report import Report, summary

NO_VERDICT = 3
"""The exit code if the machine was too busy: what was seen is neither for the relay nor against it."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.chaos")
    parser.add_argument(
        "--seconds",
        type=float,
        default=600.0,
        help="of faults, in all plans together [%(default)g]; each plan takes 15 s more",
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="which faults there are [the time]")
    parser.add_argument(
        "--plan",
        nargs="*",
        choices=[plan.name for plan in PLANS],
        help="run these [all]; each has a seed of its own, counted from --seed",
    )
    parser.add_argument(
        "--soak", action="store_true", help="run for --seconds with a fault each minute, and see memory"
    )
    parser.add_argument(
        "--instances",
        type=int,
        choices=range(2, 9),
        metavar="N",
        help="in a soak, all but one of which live on [3]",
    )
    parser.add_argument(
        "--share",
        type=float,
        default=0.0,
        help="of a core that each instance of a soak uses [0.5, or less on few cores]",
    )
    parser.add_argument("--faults", nargs="*", choices=sorted(KINDS), help="make these only")
    parser.add_argument("--on-outage", choices=("local", "refuse"), help="whatever the plan has")
    parser.add_argument("--affinity", action="store_true", help="have a balancer that hashes the key")
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which is kept [none is]")
    return parser


def chosen(options: argparse.Namespace) -> list[Plan]:
    """Return the plans that options ask for; together their faults last ``options.seconds``."""
    if options.soak:
        count = options.instances or SOAK.instances
        soak = dataclasses.replace(SOAK, instances=count, survivors=count - 1, share=options.share)
        return [dataclasses.replace(soak, seconds=options.seconds, seed=options.seed)]
    plans = [plan for plan in PLANS if not options.plan or plan.name in options.plan]
    factor = options.seconds / sum(plan.seconds for plan in plans)
    changes: dict[str, object] = {}
    if options.faults:
        changes["faults"] = tuple(options.faults)
    if options.on_outage:
        changes["on_outage"] = options.on_outage
    if options.affinity:
        changes["has_affinity"] = True
    return [
        dataclasses.replace(plan, seconds=plan.seconds * factor, seed=options.seed + at, **changes)  # type: ignore[arg-type]  # each has the type of its field
        for at, plan in enumerate(PLANS)
        if plan in plans
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; return 1 if something did not hold, and `NO_VERDICT` if nobody can tell."""
    options = _parser().parse_args(arguments)
    reports: list[Report] = []
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyryrelay-chaos-")))
        for plan in chosen(options):
            place = folder / plan.name
            place.mkdir(parents=True, exist_ok=True)
            try:
                reports.append(driver.run(plan, place))
            except pytest.skip.Exception as reason:
                sys.stdout.write(f"== {plan.name}: skipped, {reason}\n")
                continue
            sys.stdout.write(f"{reports[-1]}\n\n")
            sys.stdout.flush()
    sys.stdout.write(f"{summary(reports, options.seed)}\n")
    if any(report.failed for report in reports):
        return 1
    return 0 if all(report.has_verdict for report in reports) else NO_VERDICT


if __name__ == "__main__":
    sys.exit(main())
