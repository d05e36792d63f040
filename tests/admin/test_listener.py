"""The admin listener of a relay: its token at the start and at a reload, and what the dashboard is sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.admin import Client
from tests.support.pyry import address
from tests.support.service import Machine
from twisted.web.server import Site

from pyryrelay.admin import tokens
from pyryrelay.admin.dashboard.feed import MAX_NEW_REFUSALS
from pyryrelay.admin.tokens import TokenFileError
from pyryrelay.config.sources import SettingsError
from pyryrelay.mounts import Settings
from pyryrelay.observe.refusals import MAX_RECENT
from pyryrelay.service import RelayService, Times

ADMIN = 9090
SECRET = "correct-horse-battery-staple"
OTHER = "another-horse-battery-staple"


class Running:
    """A relay with a token."""

    def __init__(self, machine: Machine, folder: Path, **given: Any) -> None:
        self.file = folder / "token"
        self.write(SECRET)
        self.machine = machine
        settings = Settings(admin_token_file="token", **given)
        self.service = RelayService(settings, machine, machine.seconds, Times(), base=folder)
        self.service.startService()
        site = machine.ports[ADMIN].factory
        assert isinstance(site, Site)
        self.client = Client(site)

    def write(self, secret: str, mode: int = 0o600) -> None:
        """Write the file."""
        self.file.write_text(f"{secret}\n")
        self.file.chmod(mode)

    def status(self, secret: str) -> int:
        """Return the status of an answer to this token."""
        return self.client.request("GET", "/status", Authorization=f"Bearer {secret}").status

    def reload(self) -> Sequence[object]:
        """Reload, and return the error if there is one."""
        found: list[Any] = []
        self.service.reload().addCallback(found.append)
        return [outcome.error for outcome in found if outcome.error]


@pytest.fixture
def running(machine: Machine, tmp_path: Path) -> Running:
    """A relay with a token."""
    return Running(machine, tmp_path)


def test_the_token_of_the_start(running: Running) -> None:
    """It is needed from the first request on."""
    assert [running.status(SECRET), running.status("no")] == [200, 401]
    assert running.client.request("GET", "/metrics").status == 401


def test_a_token_that_cannot_be_used(machine: Machine, tmp_path: Path) -> None:
    """A relay whose token others can read does not start."""
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(SettingsError, match="other users"):
        RelayService(Settings(admin_token_file="token"), machine, machine.seconds, Times(), base=tmp_path)


def test_a_reload_reads_the_token_again(running: Running) -> None:
    """From then on the old one is wrong."""
    running.write(OTHER)
    assert running.status(SECRET) == 200
    assert running.reload() == []
    assert [running.status(SECRET), running.status(OTHER)] == [401, 200]


def test_a_reload_with_a_bad_token_changes_nothing(running: Running) -> None:
    """The error names the file, and the token of before is kept."""
    running.write(OTHER, 0o644)
    (error,) = running.reload()
    assert "--admin-token-file" in str(error)
    assert "horse" not in str(error)
    assert running.status(SECRET) == 200


def test_a_file_that_may_not_be_read_any_more(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change of the user, the token of before is kept, and the reload goes on."""

    def forbidden(path: Path) -> None:
        raise TokenFileError("cannot be read: Permission denied", "", is_forbidden=True)

    monkeypatch.setattr(tokens, "read_token", forbidden)
    assert running.reload() == []
    assert running.status(SECRET) == 200


def test_a_sample_each_second(running: Running) -> None:
    """They are kept from the start on, whether anybody listens or not."""
    running.machine.pump([1.0] * 3)
    history = running.service.admin.stream.history
    assert len(history) == 3
    data, _ = history.after(0, 1)
    sample = json.loads(data.partition(b"data: ")[2])
    assert (sample["state"], sample["connections"], sample["protocols"]["pyry"]["phones"]) == ("running", {}, 0)


@pytest.mark.parametrize(("form", "shown"), [("full", "192.0.2.7"), ("prefix", "192.0.2.0/24"), ("none", "-")])
def test_refusals_are_shown_in_the_form_of_the_log(machine: Machine, tmp_path: Path, form: str, shown: str) -> None:
    """The page has no more of an address than the log."""
    running = Running(machine, tmp_path, log_client_address=form)
    running.service.refusals.refused("client", 429, "rate_limit", address())
    (found,) = running.service.admin.stream._hello()["refusals"]
    assert [found[key] for key in ("client", "status", "reason", "route")] == [shown, 429, "rate_limit", "client"]


def test_only_so_many_refusals_are_sent(running: Running) -> None:
    """A page gets the last ones at its opening, and a bounded number each second."""
    exchange = running.client.begin("GET", "/events", Authorization=f"Bearer {SECRET}")
    for number in range(MAX_RECENT + 50):
        running.service.refusals.refused("client", 429, f"r{number}", address())
    running.machine.pump([1.0])
    assert exchange.sent.count(b'"reason":') == MAX_NEW_REFUSALS
    assert len(running.service.admin.stream._hello()["refusals"]) == MAX_RECENT
    before = len(exchange.sent)
    running.machine.pump([1.0])
    assert b"event: refusals" not in exchange.sent[before:]


def test_the_stream_ends_with_the_relay(running: Running) -> None:
    """The connections of pages end with the relay."""
    exchange = running.client.begin("GET", "/events", Authorization=f"Bearer {SECRET}")
    running.service.stopService()
    running.machine.pump([0.5] * 40)
    assert exchange.sent.endswith(b"0\r\n\r\n")


def test_the_stream_ends_with_the_session(running: Running) -> None:
    """A page whose session has ended gets nothing more."""
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    cookie = running.client.request("POST", "/login", f"token={SECRET}", **form).fields["Set-Cookie"].split(";")[0]
    exchange = running.client.begin("GET", "/events", Cookie=cookie)
    running.machine.pump([1.0])
    assert not exchange.sent.endswith(b"0\r\n\r\n")
    running.client.change("POST", "/logout", Cookie=cookie)
    running.machine.pump([1.0])
    assert exchange.sent.endswith(b"0\r\n\r\n")
