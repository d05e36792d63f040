"""Warnings about native parts that are missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pyryrelay.websocket.frames.native import native_warnings


def test_nothing_to_say() -> None:
    """There is no warning if all native parts are in use, as on every platform with wheels of both."""
    assert native_warnings(uses_nvx=True, has_nvx=True, has_speedups=True) == []


@pytest.mark.parametrize(("has_nvx", "fix"), [(True, "AUTOBAHN_USE_NVX"), (False, "pip install")])
def test_the_fix_fits_the_cause(has_nvx: bool, fix: str) -> None:
    """The fix depends on whether a part was turned off or never built."""
    (line,) = native_warnings(uses_nvx=False, has_nvx=has_nvx, has_speedups=True)
    assert "NVX" in line
    assert fix in line.rpartition("; ")[2]


def test_unmasking_in_python() -> None:
    """Without native unmasking the warning says that frames of every size cost more."""
    (line,) = native_warnings(uses_nvx=True, has_nvx=True, has_speedups=False)
    assert "unmasking" in line
    assert "pip install" in line


def test_autobahn_is_asked() -> None:
    """If Autobahn's native part is turned off in the environment, there is a warning."""
    program = "from pyryrelay.websocket.frames.native import native_warnings; print(len(native_warnings()))"
    off = os.environ | {"AUTOBAHN_USE_NVX": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=off, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
