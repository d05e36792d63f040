"""What keeps automatic certificates from working, told before the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyryrelay.mounts import Settings
from pyryrelay.preflight import acme
from pyryrelay.preflight.account import Account
from pyryrelay.preflight.acme import automatic_certificates

SETTINGS = Settings(listen=("ssl:443",), acme=("a.example",), acme_cache="acme")


def lines(settings: Settings, base: Path) -> list[str]:
    """Return what is found, a line each."""
    return [str(finding) for finding in automatic_certificates(settings, base, Account.of({}))]


def test_nothing_is_found_without_names(tmp_path: Path) -> None:
    """Relays without automatic certificates need neither folder nor package."""
    (tmp_path / "acme").write_text("")
    assert lines(Settings(acme_cache="acme"), tmp_path) == []


def test_a_folder_that_is_still_to_be_created(tmp_path: Path) -> None:
    """It is no problem, and nothing is created."""
    assert lines(SETTINGS, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_no_endpoint_would_use_it(tmp_path: Path) -> None:
    """The fix is an endpoint with TLS."""
    settings = Settings(listen=("tcp:80",), acme=("a.example", "b.example"))
    expected = "--acme 'a.example b.example': no ssl: endpoint would use the certificate; add --listen ssl:443"
    assert lines(settings, tmp_path) == [expected]


def test_the_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line has the command that installs it."""
    monkeypatch.setattr(acme, "_LIBRARY", "acme_of_nobody")
    [line] = lines(SETTINGS, tmp_path)
    assert line.endswith("which is not installed; pip install 'pyryrelay[acme]'")


def test_a_folder_that_others_can_read(tmp_path: Path) -> None:
    """The line has the command that mends it."""
    (tmp_path / "acme").mkdir(mode=0o755)
    (tmp_path / "acme").chmod(0o755)
    [line] = lines(SETTINGS, tmp_path)
    assert line.startswith("--acme-cache 'acme': other users have access to the keys in it (mode 755); run: chmod 700")


def test_a_folder_that_the_user_may_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user that the relay becomes counts, not the one who starts it."""
    monkeypatch.setattr(Account, "may_write", lambda self, folder: False)
    [line] = lines(SETTINGS, tmp_path)
    assert "may not write to" in line
    assert "install -d -m 700 -o" in line
