"""The Debian package: built, installed into a copy of this machine's root, used, and removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contrib.image import Stage
from tests.support.source_tree import ROOT

from pyryrelay import __version__

BUILD = ROOT / "contrib" / "deb" / "build"
INSTALLED = """
set -e
dpkg -i /pyryrelay.deb >/dev/null
pyryrelay --version
pyryrelay run --check --config /etc/pyryrelay.toml --max-connections 200 | grep -c trust-x-forwarded-for
/opt/pyryrelay/bin/twistd --help | grep -c ' pyryrelay '
zcat /usr/share/man/man1/twistd-pyryrelay.1.gz | head -c 4 | wc -c
bash -c '. /usr/share/bash-completion/completions/pyryrelay; complete -p pyryrelay' | wc -l
test -z "$(dpkg --verify pyryrelay)"
dpkg --purge pyryrelay >/dev/null
ls -d /opt/pyryrelay /etc/pyryrelay.toml /usr/bin/pyryrelay 2>/dev/null | wc -l
"""


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.skipif(os.getuid() != 0, reason="only root can install packages")
@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not here")
def test_the_package_installs_runs_and_goes(tmp_path: Path) -> None:
    """The package brings command, service, manual and completion, checks its settings, and leaves nothing behind."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".git", ".venv", ".tox", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(source)], check=True)
    [wheel] = tmp_path.glob("*.whl")
    launcher = tmp_path / "pip"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m pip "$@"\n', encoding="utf-8")
    launcher.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    quickly = {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}  # xz takes most of the time
    variables = {**clean, "PIP": str(launcher), **quickly}
    done = subprocess.run(
        [BUILD, wheel, tmp_path], env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    [package] = tmp_path.glob("*.deb")
    stage = Stage(tmp_path / "root")
    shutil.copy(package, stage.upper / "pyryrelay.deb")
    told = stage.run("/bin/sh", "-c", INSTALLED, extra={"HOME": "/root"}).splitlines()
    assert told == [f"pyryrelay {__version__}", "1", "1", "4", "1", "0"]
