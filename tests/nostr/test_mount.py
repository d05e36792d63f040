"""The Nostr relay before anything runs: its policies, what prevents its start, and what its import costs."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.nostr_settings import Settings, settings

from pyryrelay.guard import Quota
from pyryrelay.nostr import mount
from pyryrelay.nostr.information import REFUSAL_WORDS
from pyryrelay.nostr.mount import NOSTR
from pyryrelay.nostr.options import checks
from pyryrelay.nostr.storage.sqlite.database import Lock, open_for_writing
from pyryrelay.protocol_options import Severity


def test_it_is_off_unless_it_is_asked_for() -> None:
    """The default relay speaks pyry alone."""
    assert not NOSTR.is_on(Settings())
    assert NOSTR.is_on(settings())


def test_the_routes_policy_is_that_of_the_options() -> None:
    """Caps, quotas, sizes and compression."""
    made = settings(
        max_nostr_connections=7,
        nostr_message_quota=Quota.parse("5/s"),
        nostr_max_message_bytes=2048,
        nostr_deflate="no-context",
    )
    policy = NOSTR.routes(made)["nostr"]
    assert (policy.max_connections, policy.max_message_bytes, policy.deflate) == (7, 2048, "no-context")
    assert policy.throttle == made.nostr_throttle()
    assert ("Access-Control-Allow-Origin", "*") in policy.answer_fields
    assert NOSTR.routes(settings())["nostr"].deflate is None


def test_the_kind_says_what_it_uses() -> None:
    """Words of refusals, and the kinds of its findings."""
    assert NOSTR.name == "nostr"
    assert NOSTR.refusal_words == REFUSAL_WORDS
    assert NOSTR.checks == checks.CHECKS


def test_a_relay_without_nostr_does_not_load_it() -> None:
    """Importing what twistd runs imports options and words alone, which ``--help`` and logs need."""
    code = "import sys, pyryrelay.start.twistd; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    rooms = {name.split(".")[2] for name in loaded if name.startswith("pyryrelay.nostr.")}
    assert not rooms & {"application", "running", "messages", "filters", "serving", "storage", "tools", "workers"}
    assert "coincurve" not in loaded


# What prevents the start


def test_a_usable_database_is_no_problem(tmp_path: Path) -> None:
    """A new one is not, and nothing is created by looking."""
    assert NOSTR.findings(settings(), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_a_problem(tmp_path: Path) -> None:
    """The fix is to create it."""
    (finding,) = NOSTR.findings(settings(nostr_database="sqlite:missing/a.sqlite"), tmp_path)
    assert str(finding) == f"--nostr-database: '{tmp_path}/missing' is not a directory; create it"
    assert finding.check.severity is Severity.ERROR


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    """The database cannot be created there."""
    tmp_path.chmod(0o500)
    (finding,) = NOSTR.findings(settings(), tmp_path)
    assert "cannot be written" in finding.why


def test_a_file_of_another_program_is_a_problem(tmp_path: Path) -> None:
    """It is not overwritten."""
    database = sqlite3.connect(tmp_path / "pyryrelay-nostr.sqlite")
    database.execute("CREATE TABLE other (x)")
    database.close()
    (finding,) = NOSTR.findings(settings(), tmp_path)
    assert "belongs to another program" in finding.why
    assert finding.fix == "choose another file"


def test_a_file_of_another_relay_is_a_conflict(tmp_path: Path) -> None:
    """Only the start minds that another relay has the database."""
    path = tmp_path / "x.sqlite"
    options = settings(nostr_database="sqlite:x.sqlite")
    assert NOSTR.findings(options, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    open_for_writing(path).close()
    lock = Lock(path)
    (conflict,) = NOSTR.findings(options, tmp_path)
    assert conflict.check.severity is Severity.CONFLICT
    assert "in use by another process" in conflict.why
    assert conflict.fix == "stop that one first"
    lock.release()
    assert NOSTR.findings(options, tmp_path) == []
    assert NOSTR.findings(settings(nostr_database="sqlite::memory:"), tmp_path) == []


def test_a_missing_library_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line with the command that installs it."""
    monkeypatch.setattr(mount, "find_spec", lambda name: None)
    (finding,) = NOSTR.findings(settings(), tmp_path)
    assert finding.fix == "pip install 'pyryrelay[nostr]'"


def test_contradictions_are_problems_and_doubts_are_warnings(tmp_path: Path) -> None:
    """Both come from the checks of the options."""
    public = settings(listen=("tcp:8080",), nostr_write="auth")
    found = NOSTR.findings(public, tmp_path)
    assert [finding.check.severity for finding in found] == [Severity.ERROR, Severity.WARNING]
    assert all("--nostr-url" in finding.fix for finding in found)
