"""The user of the relay, and its privileges: with those of real processes where this one may give them away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.other_users import NOBODY, needs_nobody

from pyryrelay.mounts import Settings
from pyryrelay.preflight import account
from pyryrelay.preflight.account import Account, capabilities_of, privileges
from pyryrelay.preflight.checks import CAPABILITIES, ROOT

PROGRAM = """
from pyryrelay.config.settings import SharedSettings
from pyryrelay.preflight.account import privileges
for finding in privileges(SharedSettings(listen=("tcp:{port}",), kernel_drop={drop}), {{}}):
    print(finding)
"""


def told(*arguments: str, port: int = 8080, drop: bool | None = None) -> str:
    """Return what a process with the privileges of these arguments of setpriv finds."""
    words = ["setpriv", *arguments, sys.executable, "-c", PROGRAM.format(port=port, drop=drop)]
    env = {"PYTHONPATH": ":".join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout


def test_root_is_found_unless_twistd_becomes_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root without --uid is found; with it, nothing is, because all capabilities are given up with it."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (finding,) = privileges(Settings(), {})
    assert finding.check is ROOT
    assert "--uid (to twistd before pyryrelay, or to pyryrelay run)" in finding.fix
    assert list(privileges(Settings(), {"uid": NOBODY.pw_uid})) == []
    (again,) = privileges(Settings(), {"uid": 0})
    assert again == finding


def test_capabilities_that_are_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user's capabilities are found, unless the settings need them."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(account, "capabilities_of", lambda: {"NET_ADMIN", "NET_BIND_SERVICE"})
    (finding,) = privileges(Settings(), {})
    assert finding.check is CAPABILITIES
    assert finding.what == "capabilities CAP_NET_ADMIN, CAP_NET_BIND_SERVICE"
    assert "keep none" in finding.fix
    (surplus,) = privileges(Settings(listen=("tcp:443",)), {})
    assert surplus.what == "capabilities CAP_NET_ADMIN"
    assert "keep CAP_NET_BIND_SERVICE" in surplus.fix
    assert list(privileges(Settings(listen=("ssl:443:privateKey=a",), kernel_drop=True), {})) == []


def test_ports_that_need_no_privilege_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the system lets everybody listen on low ports, no capability is needed for them."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(account, "capabilities_of", lambda: {"NET_BIND_SERVICE"})
    monkeypatch.setattr(account, "_UNPRIVILEGED", tmp_path / "first")
    assert list(privileges(Settings(listen=("tcp:443",)), {})) == []
    (tmp_path / "first").write_text("0\n")
    assert len([*privileges(Settings(listen=("tcp:443",)), {})]) == 1


def test_the_status_of_a_process(tmp_path: Path) -> None:
    """Capabilities are read by their bits; a system without them has none."""
    path = tmp_path / "status"
    assert capabilities_of(path) == set()
    path.write_text("Name:\tx\nCapEff:\t0000010000001401\n")
    assert capabilities_of(path) == {"CHOWN", "NET_BIND_SERVICE", "NET_ADMIN", "CHECKPOINT_RESTORE"}
    path.write_text("CapEff:\tzz\n")
    assert capabilities_of(path) == set()


@needs_nobody
def test_a_real_process_with_capabilities() -> None:
    """A process of another user with ambient capabilities is told which it does not need; without any, nothing."""
    drop = [f"--reuid={NOBODY.pw_uid}", "--clear-groups"]
    assert told(*drop) == ""
    caps = [*drop, "--inh-caps=-all,+net_bind_service,+sys_time", "--ambient-caps=-all,+net_bind_service,+sys_time"]
    assert told(*caps).startswith("capabilities CAP_NET_BIND_SERVICE, CAP_SYS_TIME: the relay needs them for nothing")
    assert told(*caps, port=80).startswith("capabilities CAP_SYS_TIME: ")
    assert told("--clear-groups").startswith("user root: ")


def test_accounts_of_twistds_options() -> None:
    """The account is that of --uid and --gid, with the user's groups; a number without a user is allowed."""
    mine = Account.of({})
    assert (mine.uid, os.getegid() in mine.gids) == (os.geteuid(), True)
    assert Account.of({"gid": 12345}).gids >= {12345}
    nobody = Account.of({"uid": NOBODY.pw_uid})
    assert (nobody.name, NOBODY.pw_gid in nobody.gids) == ("nobody", True)
    unknown = Account.of({"uid": 54321, "gid": 7})
    assert (unknown.name, unknown.gids) == ("54321", frozenset({7}))
    assert Account.of({"uid": 54321}).gids == frozenset()
