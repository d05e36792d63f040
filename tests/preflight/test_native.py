"""Warnings about native parts that are missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pyryrelay.preflight.native import native_parts


def test_nothing_to_say() -> None:
    """There is no warning if all native parts are in use, as on every platform with wheels of both."""
    assert list(native_parts(uses_nvx=True, has_nvx=True, has_speedups=True)) == []


@pytest.mark.parametrize(("has_nvx", "fix"), [(True, "AUTOBAHN_USE_NVX"), (False, "pip install")])
def test_the_fix_fits_the_cause(has_nvx: bool, fix: str) -> None:
    """The fix depends on whether a part was turned off or never built."""
    (finding,) = native_parts(uses_nvx=False, has_nvx=has_nvx, has_speedups=True)
    assert "NVX" in finding.what
    assert fix in finding.fix


def test_unmasking_in_python() -> None:
    """Without native unmasking the warning says that frames of every size cost more."""
    (finding,) = native_parts(uses_nvx=True, has_nvx=True, has_speedups=False)
    assert "unmasking" in finding.why
    assert "pip install" in finding.fix


def test_autobahn_is_asked() -> None:
    """If Autobahn's native part is turned off in the environment, there is a warning."""
    program = "from pyryrelay.preflight.native import native_parts; print(len([*native_parts()]))"
    off = os.environ | {"AUTOBAHN_USE_NVX": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=off, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
