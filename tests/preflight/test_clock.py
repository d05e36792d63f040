"""Whether the clock is synchronised: of a system that a test makes up, and of this one."""

from __future__ import annotations

import ctypes
import errno
import sys
from typing import Any

import pytest

from pyryrelay.preflight.checks import CLOCK
from pyryrelay.preflight.clock import STA_UNSYNC, TIME_ERROR, clock, is_synchronised

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems are not asked")


class Libc:
    """A C library whose kernel has this state."""

    def __init__(self, result: int, status: int = 0) -> None:
        self.result, self.status = result, status
        self.asked_to_change: list[int] = []

    def ntp_adjtime(self, pointer: Any) -> int:
        timex = pointer._obj
        self.asked_to_change.append(timex.modes)
        timex.status = self.status
        return self.result


@ON_LINUX
@pytest.mark.parametrize(
    ("libc", "known"),
    [
        (Libc(0), True),
        (Libc(1), True),
        (Libc(TIME_ERROR, STA_UNSYNC), False),
        (Libc(TIME_ERROR), False),
        (Libc(0, STA_UNSYNC), False),
        (Libc(-1), None),
        (object(), None),
    ],
)
def test_what_the_kernel_knows(libc: object, known: bool | None) -> None:
    """A clock in an error state, or marked as not synchronised, is found; where nobody tells, nothing is."""
    assert is_synchronised(libc) is known
    assert [finding.check for finding in clock(libc)] == ([CLOCK] if known is False else [])
    assert set(getattr(libc, "asked_to_change", ())) <= {0}


@ON_LINUX
def test_the_clock_of_this_machine() -> None:
    """The real call fits in the structure, and changes nothing; it agrees with adjtimex."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(512)
    result = libc.adjtimex(buffer)
    if result < 0:
        assert ctypes.get_errno() in (errno.EPERM, errno.ENOSYS)
        assert is_synchronised() is None
    else:
        assert is_synchronised() is (result != TIME_ERROR)


def test_other_systems_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the structure is another one."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert is_synchronised(Libc(TIME_ERROR)) is None
