"""The systemd units, by systemd's own tools."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contrib.front import CONTRIB, ROOT, text_of, with_changes
from tests.end_to_end.harness import DEADLINE_S

from pyryrelay.mounts import Settings
from pyryrelay.service.relay import MOVE_LATE_S, STOP_S

ANALYZE = shutil.which("systemd-analyze")
SERVICE = "systemd/pyryrelay.service"
SOCKET = "systemd/pyryrelay.socket"
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed (Debian: systemd)")
MOST_EXPOSED = 2.0


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(ANALYZE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


@needs_systemd
def test_the_unit_is_hardened() -> None:
    """`systemd-analyze security` rates the service below 2, and as the page says."""
    done = _analyze("security", "--offline=true", "--no-pager", str(CONTRIB / SERVICE))
    found = re.search(r"exposure level for pyryrelay\.service: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) < MOST_EXPOSED
    page = (ROOT / "docs" / "howto" / "run-as-a-service.md").read_text(encoding="utf-8")
    assert f"rates the unit {found[1]}" in page


@needs_systemd
def test_the_units_are_valid(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds no problem, once the programs are where this machine has them."""
    service = with_changes(text_of(SERVICE), {"Documentation=man:twistd-pyryrelay(1)\n": ""})
    service = re.sub(r"/opt/pyryrelay/bin/(?:twistd|pyryrelay)\b", sys.executable, service)
    (tmp_path / "pyryrelay.service").write_text(service, encoding="utf-8")
    (tmp_path / "pyryrelay.socket").write_text(text_of(SOCKET), encoding="utf-8")
    done = _analyze("verify", str(tmp_path / "pyryrelay.service"), str(tmp_path / "pyryrelay.socket"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_tls_library_needs_is_allowed() -> None:
    """The unit does not forbid memory that is written and executed: with that, TLS endpoints cannot listen."""
    assert not re.search(r"^MemoryDenyWriteExecute=", text_of(SERVICE), re.MULTILINE)


def test_the_socket_has_the_name_that_the_settings_ask_for() -> None:
    """The endpoint of contrib/toml/socket.toml names the socket of the unit."""
    [name] = re.findall(r"^FileDescriptorName=(\w+)$", text_of(SOCKET), re.MULTILINE)
    assert f'"systemd:domain=INET6:name={name}"' in text_of("toml/socket.toml")


def test_the_drop_in_gives_a_cluster_time() -> None:
    """To move its peers with the default of --drain-over, and then to end as a relay alone does."""
    [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", text_of("systemd/cluster.conf"), re.MULTILINE)
    [alone] = re.findall(r"^TimeoutStopSec=(\d+)$", text_of(SERVICE), re.MULTILINE)
    assert int(seconds) >= Settings().drain_over_s + MOVE_LATE_S + STOP_S + int(alone)


@needs_systemd
def test_the_drop_in_is_valid(tmp_path: Path) -> None:
    """`systemd-analyze verify` reads it together with the unit."""
    service = with_changes(text_of(SERVICE), {"Documentation=man:twistd-pyryrelay(1)\n": ""})
    service = re.sub(r"/opt/pyryrelay/bin/(?:twistd|pyryrelay)\b", sys.executable, service)
    (tmp_path / "pyryrelay.service").write_text(service, encoding="utf-8")
    (tmp_path / "pyryrelay.service.d").mkdir()
    (tmp_path / "pyryrelay.service.d" / "cluster.conf").write_text(text_of("systemd/cluster.conf"), encoding="utf-8")
    done = _analyze("verify", str(tmp_path / "pyryrelay.service"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
