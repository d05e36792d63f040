"""Everything that is looked at before the start."""

from __future__ import annotations

import datetime
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from pyryrelay.config.types import TrustedProxies
from pyryrelay.guard import CidrSet
from pyryrelay.mounts import Settings
from pyryrelay.preflight import inspection
from pyryrelay.preflight.checks import ENDPOINT, NO_PROTOCOL, UNKNOWN_CHECK
from pyryrelay.preflight.inspection import Situation, endpoints, inspect, of_settings
from pyryrelay.protocol_options import Finding

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
FREE = Settings(listen=("tcp:0:interface=127.0.0.1",), admin_listen="", max_connections=10)


def inspected(settings: Settings, base: Path, **twistd_options: object) -> list[Finding]:
    """Return what is found for this process."""
    return inspect(settings, Situation(base, twistd_options, "", NOW))


def test_nothing_to_find(tmp_path: Path) -> None:
    """On a machine without problems nothing is found, made or changed."""
    assert inspected(FREE, tmp_path) == []
    assert list(endpoints(FREE, tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_endpoints_are_found_at_once(tmp_path: Path) -> None:
    """All endpoints that cannot be listened on are found, with option, value, cause and fix."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        found = [*endpoints(Settings(listen=(text,), admin_listen="unix:nowhere/admin"), tmp_path)]
    first, second = map(str, found)
    assert {finding.check for finding in found} == {ENDPOINT}
    assert first.startswith(f"--listen (from default): {text!r} cannot be listened on: Address already in use: ")
    assert second.startswith("--admin-listen (from default): 'unix:nowhere/admin' cannot be listened on: there is no")


def test_the_endpoints_of_all_workers_are_tried(tmp_path: Path) -> None:
    """Those for clients, and those for other instances."""
    settings = Settings(
        workers=2,
        listen=("unix:nowhere/{worker}.sock",),
        cluster=("redis://h",),
        cluster_secret_file="s",
        cluster_listen="unix:nowhere/c{worker}.sock",
        cluster_advertise="unix:/nowhere/c{worker}.sock",
        cluster_peers=TrustedProxies(CidrSet(), unix=True),
        admin_listen="",
    )
    found = [str(finding).partition(" ")[2].split("'")[1] for finding in endpoints(settings, tmp_path)]
    assert found == [f"unix:nowhere/{name}.sock" for name in ("0", "1", "c0", "c1")]


def test_everything_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part that looks for something has its findings in the whole."""
    marks = {name: Finding(ENDPOINT, name, "w", "f") for name in inspection.__dict__ if name in PARTS}
    assert set(marks) == PARTS
    for name, mark in marks.items():
        monkeypatch.setattr(inspection, name, lambda *_, mark=mark: [mark])
    found = inspected(Settings(listen=("tcp:0",), admin_listen=""), tmp_path)
    assert {finding.what for finding in found} == PARTS


PARTS = {
    "certificates",
    "clock",
    "exposure",
    "jail_file",
    "native_parts",
    "open_files",
    "privileges",
    "readable_secrets",
    "twistd_folders",
    "unwritable",
}


def test_accepted_checks_exist(tmp_path: Path) -> None:
    """A name of a check that does not exist is an error, with the nearest one."""
    accepting = replace(FREE, accept_finding=("clock", "nostr-name", "rot", "x"))
    rot, x = inspected(accepting, tmp_path)
    assert {rot.check, x.check} == {UNKNOWN_CHECK}
    assert str(rot) == "--accept-finding (from default): 'rot' is not a check; did you mean root?"
    assert x.fix.startswith("write one of no-protocol, ")


def test_a_relay_without_a_protocol(tmp_path: Path) -> None:
    """A relay that speaks nothing is an error that names the switches, if there are any."""
    (finding,) = of_settings(replace(FREE, pyry=False, origins={"pyry": "command line"}), tmp_path)
    assert finding.check is NO_PROTOCOL
    assert str(finding).startswith("--pyry (from command line): 'false' leaves no protocol; turn one on: --pyry or")

    class Bare(Settings):
        protocols = ()

    (bare,) = of_settings(Bare(), tmp_path)
    assert str(bare) == "this relay: it has no protocol; mount one"
