"""What findings mean for the start, and in which words."""

from __future__ import annotations

from pyryrelay.config.settings import SharedSettings
from pyryrelay.preflight.report import Report, report
from pyryrelay.protocol_options import Check, Finding, Severity

ERROR, CONFLICT, WARNING, NOTE = (
    Finding(Check(f"a-{severity}", severity, "About it."), f"--{severity} \x1b", "bad", "mend it")
    for severity in Severity
)
FOUND = [ERROR, CONFLICT, WARNING, NOTE]


def test_the_start() -> None:
    """Errors and conflicts prevent the start, warnings do not; every line is printable."""
    assert report(FOUND, SharedSettings()) == Report(
        fatal=["--error \\x1b: bad; mend it", "--conflict \\x1b: bad; mend it"],
        warnings=["--warning \\x1b: bad; mend it"],
        notes=["--note \\x1b: bad; mend it"],
    )


def test_a_check() -> None:
    """A check may come before a reload, so what another process has is a note."""
    told = report(FOUND, SharedSettings(), is_check=True)
    assert told.fatal == ["--error \\x1b: bad; mend it"]
    assert told.notes == [
        "prevents a start, not a reload: --conflict \\x1b: bad; mend it",
        "--note \\x1b: bad; mend it",
    ]


def test_production() -> None:
    """In production warnings are fatal, and the line says how to accept one."""
    told = report(FOUND, SharedSettings(production=True))
    assert told.warnings == []
    assert told.fatal[2] == (
        "--warning \\x1b: bad; mend it (fatal because of --production; or --accept-finding a-warning)"
    )


def test_what_is_accepted() -> None:
    """An accepted warning is a note, in production too; errors cannot be accepted."""
    accepting = SharedSettings(production=True, accept_finding=("a-warning", "a-error"))
    told = report(FOUND, accepting)
    assert told.notes == ["accepted: --warning \\x1b: bad; mend it", "--note \\x1b: bad; mend it"]
    assert len(told.fatal) == 2
