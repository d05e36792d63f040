"""What findings mean for the start, as lines for the operator: the one place that decides and words it. PURE."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pyryrelay.config.settings import SharedSettings
from pyryrelay.protocol_options import Finding, Severity
from pyryrelay.text import printable

__all__ = ["Report", "report"]


@dataclass(slots=True)
class Report:
    """A line for each finding: ``fatal`` ones prevent the start, ``warnings`` are logged by it, ``notes`` are not."""

    fatal: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def report(findings: Iterable[Finding], settings: SharedSettings, *, is_check: bool = False) -> Report:
    """Sort findings by what they mean under these settings.

    Warnings are fatal with ``--production``, unless they are accepted. ``--check`` is used before reloads too, so
    ``is_check`` turns conflicts into notes.
    """
    told = Report()
    for finding in findings:
        line, severity = printable(str(finding)), finding.check.severity
        if severity is Severity.CONFLICT and is_check:
            told.notes.append(f"prevents a start, not a reload: {line}")
        elif severity in (Severity.ERROR, Severity.CONFLICT):
            told.fatal.append(line)
        elif severity is Severity.NOTE:
            told.notes.append(line)
        elif finding.check.name in settings.accept_finding:
            told.notes.append(f"accepted: {line}")
        elif settings.production:
            told.fatal.append(f"{line} (fatal because of --production; or --accept-finding {finding.check.name})")
        else:
            told.warnings.append(line)
    return told
