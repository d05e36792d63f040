"""The limit of open files. The limits of the test process are not touched, except by one in a child process."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from pyryrelay.guard import LeaseLimits
from pyryrelay.mounts import Settings
from pyryrelay.preflight.open_files import OTHER_FILES, files_needed, open_files, raise_open_files

INFINITY = resource.RLIM_INFINITY


class Limits:
    """A soft and a hard limit of open files in place of the process's."""

    def __init__(self, soft: int, hard: int, refuses: Exception | None = None) -> None:
        self.soft, self.hard = soft, hard
        self._refuses = refuses

    def get(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.soft, self.hard

    def set(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        if self._refuses is not None:
            raise self._refuses
        assert limits[1] == self.hard
        self.soft = limits[0]


def installed(monkeypatch: pytest.MonkeyPatch, limits: Limits) -> Limits:
    """Return limits that are in force while the test runs."""
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)
    return limits


def test_how_many_files_are_needed() -> None:
    """The needed files are connections, handshakes with lingering refusals, and some for the relay itself."""
    limits = LeaseLimits(max_connections=10_000, max_handshakes=1_024)
    assert files_needed(limits, Settings(workers=1)) == 10_000 + 2 * 1_024 + OTHER_FILES
    # One of several processes also serves what others have accepted.
    assert files_needed(limits, Settings(workers=4)) == 2 * 10_000 + 4 + 2 * 1_024 + OTHER_FILES
    assert files_needed(limits, Settings(workers=1, cluster_listen="tcp:7000")) == 3 * 10_000 + 2 * 1_024 + OTHER_FILES
    assert OTHER_FILES > 0


@pytest.mark.parametrize(
    ("soft", "hard", "raised_to"),
    [
        (1000, 1000, 1000),
        (4096, 8192, 4096),
        (INFINITY, INFINITY, INFINITY),
        (999, 1000, 1000),
        (256, 4096, 1000),
        (256, INFINITY, 1000),
    ],
)
def test_limits_that_suffice(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised_to: int) -> None:
    """The soft limit is raised if needed and never lowered, without a warning."""
    limits = installed(monkeypatch, Limits(soft, hard))
    assert raise_open_files(1000) is None
    assert limits.soft == raised_to


def test_a_hard_limit_that_is_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    """A low hard limit is used in full, with one line that has both numbers and what to do."""
    limits = installed(monkeypatch, Limits(256, 512))
    warning = str(raise_open_files(1000))
    assert limits.soft == 512
    assert len(warning.splitlines()) == 1
    for part in ("512", "1000", "LimitNOFILE", "--max-connections"):
        assert part in warning


@pytest.mark.parametrize("error", [ValueError("not allowed to raise maximum limit"), OSError(1, "not permitted")])
def test_a_system_that_refuses_the_new_limit(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A system that refuses to raise the limit causes a warning, and the relay still starts."""
    limits = installed(monkeypatch, Limits(256, INFINITY, refuses=error))
    warning = str(raise_open_files(1000))
    assert limits.soft == 256
    assert "256" in warning
    assert "1000" in warning


def test_a_shortage_is_found_without_raising_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--check`` reports a shortage by the hard limit and raises nothing."""
    limits = installed(monkeypatch, Limits(256, 512))
    (shortage,) = open_files(1000)
    assert shortage.what == "only 512 files may be open"
    assert list(open_files(512)) == []
    installed(monkeypatch, Limits(256, INFINITY))
    assert list(open_files(1000)) == []
    assert limits.soft == 256


def test_a_limit_of_a_real_process() -> None:
    """Under a hard limit of prlimit the shortage is found, and raising goes as far as it may."""
    program = (
        "from pyryrelay.preflight.open_files import open_files, raise_open_files; import resource; "
        "print(*open_files(1000), raise_open_files(1000), resource.getrlimit(resource.RLIMIT_NOFILE), sep='\\n')"
    )
    limited = ["prlimit", "--nofile=300:512", sys.executable, "-c", program]
    done = subprocess.run(limited, env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True)
    before, after, limits = done.stdout.splitlines()
    assert before == after
    assert before.startswith("only 512 files may be open: the settings need 1000; raise the hard limit (LimitNOFILE=")
    assert limits == "(512, 512)"
