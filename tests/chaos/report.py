"""What a run of the chaos driver has shown, for tests and for people. PURE. Times are seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from tests.chaos.lateness.excuses import MOST_SHARE, is_busy
from tests.chaos.lateness.late import LEAST_S, Late
from tests.chaos.plan import Plan
from tests.chaos.timeline import FAULTS, SHORT, Fault, Overlap, longest

__all__ = ["INVARIANTS", "TIMED", "Lateness", "Report", "summary"]

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


TIMED: Final = frozenset({"holders", "reach", "outages", "admission"})
"""Invariants that instances can only keep if they, and Redis, run in time."""


@dataclass(frozen=True)
class Lateness:
    """When the machine was late in a run of ``seconds``, and for how long that would have excused an overlap."""

    lates: Sequence[Late] = ()
    blind_s: float = 0.0
    seconds: float = 0.0

    @property
    def is_too_busy(self) -> bool:
        """Whether the run tells nothing about `TIMED` invariants."""
        return is_busy(self.blind_s, self.seconds)

    def __str__(self) -> str:
        """Return which places were late how often, and what could not be judged."""
        found: dict[str, list[Late]] = {}
        for late in self.lates:
            found.setdefault(late.place, []).append(late)
        places = [
            f"{place} {len(some)} x, {sum(late.length_s for late in some):.1f} s, longest {worst.length_s:.2f} s "
            f"at {_clock(worst.since)}"
            for place, some in sorted(found.items())
            for worst in [max(some, key=lambda late: late.length_s)]
        ]
        share = self.blind_s / max(self.seconds, 1e-6)
        return (
            f"late for {LEAST_S:g} s or more: {'; '.join(places) or 'never'}\n"
            f"   that would have excused an overlap in {self.blind_s:.1f} s of {self.seconds:.0f} s, {share:.2%} "
            f"(at most {MOST_SHARE:.0%})"
        )


@dataclass
class Report:
    """What a run has shown. ``problems`` has what did not hold, by invariant; it is empty if everything did.

    ``judged`` are the overlaps, each with what excuses it, or "".
    """

    plan: Plan
    seats: int = 0
    faults: Sequence[Fault] = ()
    judged: Sequence[tuple[Overlap, str]] = ()
    problems: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    lateness: Lateness = Lateness()

    @property
    def failed(self) -> list[str]:
        """Return the invariants that did not hold.

        Those that a machine may have broken that is too busy are left out, but not overlaps that it does not explain.
        """
        unsure = TIMED - {"holders"} if self.lateness.is_too_busy else ()
        return [name for name in INVARIANTS if name in self.problems and name not in unsure]

    @property
    def has_verdict(self) -> bool:
        """Whether the run tells that everything holds, or what does not."""
        return bool(self.failed) or not self.lateness.is_too_busy

    def __str__(self) -> str:
        """Return some lines for people."""
        plan = self.plan
        lines = [
            f"== {plan.name}: {plan.seconds:g} s, seed {plan.seed}, {plan.instances} instances with {plan.workers} "
            f"worker(s), on outage {plan.on_outage}{', affinity' * plan.has_affinity}{', network' * plan.network}",
            f"   {len(self.faults)} faults, {self.seats} seats, {len(self.judged)} overlaps, "
            f"longest {longest(self.overlaps):.2f} s",
            *(f"   {kind:<14} {count:>3} x, {seconds:6.1f} s" for kind, count, seconds in self.kinds()),
            *(f"   {what}: {note}" for what, note in self.notes.items() if note),
            f"   {self.lateness}",
            *self._excused(),
        ]
        for invariant, text in INVARIANTS.items():
            lines.append(f"   {self._word(invariant)} {text}")
            lines += [f"          {problem}" for problem in self.problems.get(invariant, [])[:10]]
        if self.lateness.is_too_busy:
            lines.append("   NO VERDICT: the machine was too busy; run it again while nothing else does")
        return "\n".join(lines)

    @property
    def overlaps(self) -> list[Overlap]:
        """Return the overlaps."""
        return [overlap for overlap, _ in self.judged]

    def _word(self, invariant: str) -> str:
        if invariant in self.failed:
            return "FAILED"
        return "unsure" if self.lateness.is_too_busy and invariant in TIMED else "ok    "

    def _excused(self) -> list[str]:
        """Return how many overlaps were excused by what, and of those of a late machine each."""
        by_faults = [overlap.length_s for overlap, excuse in self.judged if excuse == FAULTS]
        late = [(overlap, excuse) for overlap, excuse in self.judged if excuse not in ("", FAULTS, SHORT)]
        seconds = sum(overlap.length_s for overlap, _ in late)
        return [
            f"   overlaps excused by faults: {len(by_faults)}, {sum(by_faults):.1f} s",
            f"   overlaps excused because the machine was late: {len(late)}, {seconds:.1f} s",
            *(
                f"          {overlap.key} at {' and '.join(overlap.instances)} for {overlap.length_s:.2f} s "
                f"at {_clock(overlap.since)}: {excuse}"
                for overlap, excuse in late[:20]
            ),
        ]

    def kinds(self) -> list[tuple[str, int, float]]:
        """Return the kinds of faults, how many there were, and how long they lasted together."""
        found: dict[str, list[float]] = {}
        for fault in self.faults:
            found.setdefault(fault.kind, []).append(fault.until - fault.since)
        return sorted((kind, len(lengths), sum(lengths)) for kind, lengths in found.items())


def _clock(at: float) -> str:
    """Return the time of day, UTC, of a time since 1970."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def summary(reports: Sequence[Report], seed: int) -> str:
    """Return a table of several runs."""
    head = f"{'plan':<12} {'faults':>6} {'seats':>6} {'overlaps':>8} {'longest':>8}  result"
    lines = [head, "-" * len(head)]
    for report in reports:
        result = f"FAILED: {', '.join(report.failed)}" if report.failed else "ok"
        if report.lateness.is_too_busy:
            late = f"NO VERDICT: the machine was too busy, {report.lateness.blind_s:.1f} s"
            result = f"{result}; {late}" if report.failed else late
        lines.append(
            f"{report.plan.name:<12} {len(report.faults):>6} {report.seats:>6} {len(report.judged):>8} "
            f"{longest(report.overlaps):>6.2f} s  {result}"
        )
    is_soak = [each.plan.name for each in reports] == ["soak"]
    again = "--soak and the same --seconds" if is_soak else "the same --seconds; add --plan NAME for one of them"
    return "\n".join([*lines, f"Repeat it with --seed {seed}, {again}."])
