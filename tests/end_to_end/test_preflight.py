"""What a real start finds about a real machine, and what --check, --production and --accept-finding make of it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartRelay
from tests.end_to_end.harness import LOCALHOST, environment, reserve_port, twistd
from tests.support.other_users import AS_NOBODY, needs_nobody
from tests.support.tls_peers import endpoint_arguments

pytestmark = pytest.mark.thorough

MACHINE = ("clock", "root", "capabilities")
"""What the machine of the tests may be like."""
ORDINARY = {"PYRYRELAY_ACCEPT_FINDING": " ".join(MACHINE)}


def checked(
    directory: Path, *options: str, prefix: tuple[str, ...] = (), variables: Mapping[str, str] = ORDINARY
) -> subprocess.CompletedProcess[str]:
    """Run --check, by default on a free port, after the words of ``prefix``, and return what became of it."""
    with reserve_port() as held:
        listen = () if "--listen" in options else ("--listen", f"tcp:{held.getsockname()[1]}:interface={LOCALHOST}")
        words = [*prefix, twistd(), "-n", "--pidfile=", "pyryrelay", "--check", "--admin-listen=", *listen, *options]
        env = environment(variables)
        return subprocess.run(words, cwd=directory, env=env, capture_output=True, text=True, check=False, timeout=60)


def warned(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the warnings of --check."""
    head = "pyryrelay: warning: "
    return [line.removeprefix(head) for line in done.stderr.splitlines() if line.startswith(head)]


@needs_nobody
def test_root_and_another_user() -> None:
    """Root is found, and so is a capability of another user that the settings do not need."""
    other = {"PYRYRELAY_ACCEPT_FINDING": "clock"}
    # Other users cannot enter the folders of pytest.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (line,) = warned(checked(folder, variables=other))
        assert line.startswith("user root: ")
        folder.chmod(0o777)
        done = checked(folder, prefix=AS_NOBODY, variables=other)
        assert (done.returncode, warned(done)) == (0, [])
        with_too_much = (*AS_NOBODY, "--inh-caps=-all,+sys_time", "--ambient-caps=-all,+sys_time")
        (surplus,) = warned(checked(folder, prefix=with_too_much, variables=other))
        assert surplus.startswith("capabilities CAP_SYS_TIME: ")


def test_too_few_open_files(tmp_path: Path) -> None:
    """A hard limit below what the caps need is found, with both numbers."""
    (line,) = warned(checked(tmp_path, prefix=("prlimit", "--nofile=256:512")))
    assert line.startswith("only 512 files may be open: the settings need ")


@pytest.mark.skipif(shutil.which("faketime") is None, reason="the time is that of faketime")
def test_a_certificate_of_yesterday(tmp_path: Path) -> None:
    """A certificate that has expired at the time of the machine is found."""
    with reserve_port() as held:
        port = held.getsockname()[1]
    options = ("--listen", f"ssl:{port}:{endpoint_arguments(tmp_path)}:interface={LOCALHOST}")
    (line,) = warned(checked(tmp_path, *options, prefix=("faketime", "-f", "+3d")))
    assert "expired on" in line
    assert line.endswith(": clients refuse to connect; renew it")


def test_production_makes_warnings_fatal(tmp_path: Path, start_relay: StartRelay) -> None:
    """With --production --check and the start end with the same lines and exit code 2, unless they are accepted."""
    options = ("--listen", "tcp:0", "--production")
    told = checked(tmp_path, *options)
    (line,) = [line for line in told.stderr.splitlines() if "--listen" in line]
    assert (told.returncode, told.stdout) == (2, "")
    assert line.startswith("pyryrelay: --listen 'tcp:0': clients from outside connect without TLS")
    assert line.endswith("(fatal because of --production; or --accept-finding plain-listener)")
    words = [twistd(), "-n", "--pidfile=", "pyryrelay", "--admin-listen=", *options]
    env = environment(ORDINARY)
    started = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (started.returncode, started.stderr.splitlines()) == (2, [line])
    accepted = checked(tmp_path, *options, *(f"--accept-finding={name}" for name in (*MACHINE, "plain-listener")))
    assert accepted.returncode == 0
    assert "pyryrelay: accepted: --listen 'tcp:0': " in accepted.stderr


def test_the_start_logs_what_a_check_shows(tmp_path: Path, start_relay: StartRelay) -> None:
    """Without --production the start logs each line that --check shows as a warning."""
    options = ("--client-address-header", "x-forwared-for", "--trust-x-forwarded-for")
    (line,) = warned(checked(tmp_path, *options))
    relay = start_relay(*options)
    assert f"{line}\n" in relay.log()


def test_a_variable_that_does_not_exist(tmp_path: Path) -> None:
    """A misspelt variable ends --check with one line and exit code 2."""
    done = checked(tmp_path, variables={**ORDINARY, "PYRYRELAY_MAX_PHONE": "3"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "pyryrelay: environment variable PYRYRELAY_MAX_PHONE: no such option; did you mean PYRYRELAY_MAX_PHONES? "
        "Rename it, or unset it\n"
    )
