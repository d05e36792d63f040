"""The warning about a slow check of UTF-8."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pyryrelay.wire.native import native_warnings


def test_nothing_to_say() -> None:
    """Where the native part is in use, as it is on every platform that has wheels of Autobahn."""
    assert native_warnings(uses_nvx=True, has_nvx=True) == []


@pytest.mark.parametrize(("has_nvx", "fix"), [(True, "AUTOBAHN_USE_NVX"), (False, "pip install")])
def test_the_fix_fits_the_cause(has_nvx: bool, fix: str) -> None:
    """It is turned off, or it was never built."""
    (line,) = native_warnings(uses_nvx=False, has_nvx=has_nvx)
    assert "NVX" in line
    assert fix in line.rpartition("; ")[2]


def test_autobahn_is_asked() -> None:
    """Its own word decides: turned off in the environment, there is a warning."""
    program = "from pyryrelay.wire.native import native_warnings; print(len(native_warnings()))"
    off = os.environ | {"AUTOBAHN_USE_NVX": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=off, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
