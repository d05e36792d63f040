"""What a run of the chaos driver has shown, for tests and for people. PURE. Times are seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.plan import Plan
from tests.chaos.timeline import Fault, Overlap, longest

__all__ = ["INVARIANTS", "Report", "summary"]

INVARIANTS: Final = {
    "holders": "never two holders, but as the rules excuse it",
    "reach": "after the faults, phones at every instance reach the same binary",
    "pairs": "pairs talk through all faults that do not end their instances, and lose no frame",
    "health": "/healthz and /readyz answer 200 all the time",
    "outages": "every outage ends without a restart",
    "admission": "over-admission stays within the bound",
    "orphans": "no entries, leases or descriptors are left over",
    "events": "events that were accepted are at all instances, and no subscription gets one twice",
    "memory": "the memory of instances does not grow",
    "processes": "processes end in order, and their logs have no traceback",
}


@dataclass
class Report:
    """What a run has shown. ``problems`` has what did not hold, by invariant; it is empty if everything did."""

    plan: Plan
    seats: int = 0
    faults: Sequence[Fault] = ()
    overlaps: list[Overlap] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return some lines for people."""
        plan = self.plan
        lines = [
            f"== {plan.name}: {plan.seconds:g} s, seed {plan.seed}, {plan.instances} instances with {plan.workers} "
            f"worker(s), on outage {plan.on_outage}{', affinity' * plan.has_affinity}{', network' * plan.network}",
            f"   {len(self.faults)} faults, {self.seats} seats, {len(self.overlaps)} overlaps, "
            f"longest {longest(self.overlaps):.2f} s",
            *(f"   {kind:<14} {count:>3} x, {seconds:6.1f} s" for kind, count, seconds in self.kinds()),
            *(f"   {what}: {note}" for what, note in self.notes.items()),
        ]
        for invariant, text in INVARIANTS.items():
            found = self.problems.get(invariant, [])
            lines.append(f"   {'FAILED' if found else 'ok    '} {text}")
            lines += [f"          {problem}" for problem in found[:10]]
        return "\n".join(lines)

    def kinds(self) -> list[tuple[str, int, float]]:
        """Return the kinds of faults, how many there were, and how long they lasted together."""
        found: dict[str, list[float]] = {}
        for fault in self.faults:
            found.setdefault(fault.kind, []).append(fault.until - fault.since)
        return sorted((kind, len(lengths), sum(lengths)) for kind, lengths in found.items())


def summary(reports: Sequence[Report], seed: int) -> str:
    """Return a table of several runs."""
    head = f"{'plan':<12} {'faults':>6} {'seats':>6} {'overlaps':>8} {'longest':>8}  result"
    lines = [head, "-" * len(head)]
    for report in reports:
        failed = ", ".join(name for name in INVARIANTS if name in report.problems)
        lines.append(
            f"{report.plan.name:<12} {len(report.faults):>6} {report.seats:>6} {len(report.overlaps):>8} "
            f"{longest(report.overlaps):>6.2f} s  {f'FAILED: {failed}' if failed else 'ok'}"
        )
    is_soak = [each.plan.name for each in reports] == ["soak"]
    again = "--soak and the same --seconds" if is_soak else "the same --seconds; add --plan NAME for one of them"
    return "\n".join([*lines, f"Repeat it with --seed {seed}, {again}."])
