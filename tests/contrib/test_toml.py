"""The settings in contrib/toml would start a relay."""

from __future__ import annotations

import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.contrib.front import CONTRIB, text_of, with_changes, write_certificate
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, environment, reserve_port, run_twistd, twistd

from pyryrelay.mounts import Settings

FILES = sorted(path.name for path in (CONTRIB / "toml").glob("*.toml"))
INHERITED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""A program that passes a descriptor on as systemd does, to the process that it becomes."""


@pytest.mark.parametrize("name", FILES)
def test_the_values_are_settings(name: str) -> None:
    """Every key is an option, every value is one of its values, and nothing contradicts anything else."""
    settings = Settings.from_sources(tomllib.loads(text_of(f"toml/{name}")), {}, {}, toml_name=name)
    assert settings.origins


def _checked(tmp_path: Path, name: str, changes: dict[str, str]) -> str:
    """Return what `--check` prints about a file, which must be valid."""
    path = tmp_path / name
    path.write_text(with_changes(text_of(f"toml/{name}"), changes), encoding="utf-8")
    done = run_twistd(tmp_path, "--config", str(path), "--check", "--max-connections", "200")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["behind-proxy.toml", "nostr.toml", "container.toml"])
def test_check_accepts_the_file(name: str, tmp_path: Path) -> None:
    """`--check` finds no problem, on ports that are free."""
    with reserve_port() as held:
        port = str(held.getsockname()[1])
    changes = {"tcp:8080": f"tcp:{port}"}
    if name == "container.toml":
        changes["tcp:9090:interface=127.0.0.1"] = ""
    assert _checked(tmp_path, name, changes)


@pytest.mark.thorough
def test_check_accepts_the_file_of_a_relay_that_speaks_tls(tmp_path: Path) -> None:
    """With a key and certificates in their places, the endpoint is valid."""
    certificate, key, _ = write_certificate(tmp_path)
    key.chmod(0o600)
    with reserve_port() as held:
        port = held.getsockname()[1]
    folder = "/etc/pyryrelay"
    changes = {"ssl:443": f"ssl:{port}:interface={LOCALHOST}", f"{folder}/privkey.pem": str(key)}
    changes |= {f"{folder}/cert.pem": str(certificate), f"{folder}/chain.pem": str(certificate)}
    assert "ssl:" in _checked(tmp_path, "public.toml", changes)


@pytest.mark.thorough
def test_check_accepts_the_socket_that_systemd_passes(tmp_path: Path) -> None:
    """With a socket of the name that the socket unit gives it, the endpoint is valid."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as inherited:
        command = [sys.executable, "-c", INHERITED, str(inherited.fileno()), sys.executable, twistd(), "-n"]
        command += ["pyryrelay", "--config", str(CONTRIB / "toml" / "socket.toml"), "--check"]
        done = subprocess.run(
            [*command, "--max-connections", "200"],
            cwd=tmp_path,
            env=environment({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "relay"}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            pass_fds=(inherited.fileno(),),
        )
    assert done.returncode == 0, done.stderr
    assert "systemd:domain=INET6:name=relay" in done.stdout
