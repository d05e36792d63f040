"""Preflight: the limit of open files against what the settings need. The process's own limits are not touched."""

from __future__ import annotations

import resource

import pytest

from pyryrelay.guard import LeaseLimits
from pyryrelay.ops.preflight import SPARE_FILES, files_needed, raise_open_files

INFINITY = resource.RLIM_INFINITY


class Limits:
    """A soft and a hard limit of open files, in place of the process's."""

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
    """These limits, for as long as the test runs."""
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)
    return limits


def test_every_place_needs_a_file() -> None:
    """Connections, handshakes with those that linger refused, and some to spare."""
    limits = LeaseLimits(max_connections=10_000, max_handshakes=1_024)
    assert files_needed(limits) == 10_000 + 2 * 1_024 + SPARE_FILES
    assert SPARE_FILES > 0


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
    """The soft limit is raised where it must be, and never lowered; there is nothing to warn of."""
    limits = installed(monkeypatch, Limits(soft, hard))
    assert raise_open_files(1000) is None
    assert limits.soft == raised_to


def test_a_hard_limit_that_is_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as it goes, with one line that names both numbers and the ways out."""
    limits = installed(monkeypatch, Limits(256, 512))
    warning = raise_open_files(1000)
    assert limits.soft == 512
    assert warning is not None
    assert len(warning.splitlines()) == 1
    for part in ("512", "1000", "LimitNOFILE", "--max-connections"):
        assert part in warning


@pytest.mark.parametrize("error", [ValueError("not allowed to raise maximum limit"), OSError(1, "not permitted")])
def test_a_system_that_refuses_the_new_limit(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """macOS and some sandboxes refuse what getrlimit seemed to allow: a warning, and the relay still starts."""
    limits = installed(monkeypatch, Limits(256, INFINITY, refuses=error))
    warning = raise_open_files(1000)
    assert limits.soft == 256
    assert warning is not None
    assert "256" in warning
    assert "1000" in warning
