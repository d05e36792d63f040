"""Certificates of a running relay: when files are looked at, and when the operator is reminded of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.harness import LogReader
from tests.support.service import Threads
from tests.support.tls_peers import named_certificate, write_pair
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from pyryrelay.config.certificate_options import CertificatePlace
from pyryrelay.listen.tls.file_watch import CertificateFiles
from pyryrelay.listen.tls.keeper import LOOK_S, REMIND_S, RENEW_TICKET_KEYS_S, CertificateKeeper, expiry_problem
from pyryrelay.runtime.periodic import Periodic

DAY_S = 86_400.0


class Kept:
    """A keeper of one certificate that expires in 30 days, on a clock."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.first = self.write("relay.example.org")
        self.clock, self.threads = Clock(), Threads()
        self.clock.advance(self.first - 30 * DAY_S)
        files = CertificateFiles([CertificatePlace.parse("live")], ["ssl:443"], where)
        files.load()
        self.keeper = CertificateKeeper(files, self.clock.seconds, self.threads.defer)
        self.periodic = Periodic(self.clock)
        self.keeper.start(self.periodic)

    def write(self, *names: str, days: float = 300.0) -> float:
        """Write another certificate, and return when it expires."""
        certificate = named_certificate(*names, days=days)
        write_pair(certificate, self.where / "live" / "fullchain.pem", self.where / "live" / "privkey.pem")
        return certificate.expires_at

    def lines(self, act: Callable[[], Any]) -> list[str]:
        """Return the lines of the log."""
        with LogReader() as log:
            act()
        return [event["log_format"] if "log_failure" in event else formatEvent(event) for event in log.events]

    def pass_days(self, count: int) -> list[int]:
        """Return how many lines each day has had."""
        hours = [len(self.lines(lambda: self.clock.pump([REMIND_S]))) for _ in range(24 * count)]
        return [sum(hours[24 * day : 24 * (day + 1)]) for day in range(count)]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Return a keeper that has been started."""
    return Kept(tmp_path)


def test_files_are_looked_at_and_taken_over(kept: Kept) -> None:
    """A new certificate is in use within some seconds, and one line says so."""
    expires_at = kept.write("new.example.org", "www.example.org")
    (line,) = kept.lines(lambda: kept.clock.advance(LOOK_S))
    assert "took over a new certificate of new.example.org, www.example.org, which expires on 20" in line
    assert [info.expires_at for info in kept.keeper.expiries()] == [expires_at]
    assert kept.lines(lambda: kept.clock.advance(LOOK_S)) == []


def test_only_one_look_at_a_time(kept: Kept) -> None:
    """While the disk does not answer, no second thread waits for it."""
    kept.threads.held = True
    calls = kept.threads.calls
    for _ in range(5):
        kept.keeper.look()
    assert kept.threads.calls == calls + 1
    kept.threads.go_on()
    kept.keeper.look()
    assert kept.threads.calls == calls + 2


def test_a_certificate_that_was_removed_meanwhile(kept: Kept) -> None:
    """What a look finds for a certificate that a reload has removed is dropped."""
    kept.write("new.example.org")
    kept.threads.held = True
    kept.keeper.look()
    kept.keeper.store.discard("live")
    kept.threads.go_on()
    assert kept.keeper.expiries() == []


def test_a_look_that_fails_is_logged_and_repeated(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in a look does not end the looking."""
    with monkeypatch.context() as patch:
        patch.setattr(CertificateFiles, "look", lambda *_: 1 / 0)
        assert kept.lines(kept.keeper.look) == ["Periodic work failed"]
    kept.write("new.example.org")
    assert len(kept.lines(lambda: kept.clock.advance(LOOK_S))) == 1


def test_reminders(kept: Kept) -> None:
    """From 14 days before the end there is one warning a day; a renewed certificate ends them."""
    assert kept.pass_days(15) == [0] * 15
    assert kept.pass_days(17) == [0, *[1] * 16]
    (line,) = kept.lines(lambda: kept.clock.pump([REMIND_S] * 24))
    assert "the certificate of relay.example.org from 'live' expired on 20" in line
    kept.write("relay.example.org", days=900)
    kept.clock.advance(LOOK_S)
    assert kept.pass_days(2) == [0, 0]


def test_a_clock_that_is_set_back(kept: Kept) -> None:
    """A clock that was wrong silences no reminder for longer than a day."""
    assert len(kept.lines(lambda: kept.clock.advance(29 * DAY_S))) == 1
    assert kept.lines(kept.keeper.remind) == []
    kept.clock.rightNow -= 5 * DAY_S
    assert len(kept.lines(kept.keeper.remind)) == 1


def test_a_certificate_that_expires_soon_is_told_at_the_start(tmp_path: Path) -> None:
    """It does not prevent a start, so there is a line at once, and then each day."""
    kept = Kept(tmp_path)
    kept.clock.advance(20 * DAY_S)
    assert len(kept.lines(lambda: kept.keeper.start(Periodic(Clock())))) == 1
    assert kept.lines(kept.keeper.remind) == []
    assert len(kept.lines(lambda: kept.clock.advance(DAY_S))) == 1


def test_what_the_start_has_told_is_not_told_again(tmp_path: Path) -> None:
    """A certificate that has expired is in the warnings of the start; the next day it is told again."""
    kept = Kept(tmp_path)
    kept.clock.advance(31 * DAY_S)
    assert kept.lines(lambda: kept.keeper.start(Periodic(Clock()))) == []
    assert len(kept.lines(lambda: kept.clock.advance(DAY_S))) == 1


def test_a_reload(kept: Kept, tmp_path: Path) -> None:
    """A reload reads certificates that are new, takes them into use, and looks at the others at once."""
    write_pair(named_certificate("b.example.org"), tmp_path / "b" / "tls.crt", tmp_path / "b" / "tls.key")
    kept.write("new.example.org")
    adopt = kept.keeper.prepare([CertificatePlace.parse("b"), CertificatePlace.parse("live")])
    assert [info.names for info in kept.keeper.expiries()] == [("relay.example.org",)]
    adopt()
    assert [info.names for info in kept.keeper.expiries()] == [("b.example.org",), ("new.example.org",)]


def test_ticket_keys_are_renewed(kept: Kept) -> None:
    """Keys of session tickets are used for hours, and not for the life of the process."""
    before = kept.keeper.store.first_context(b"")
    kept.clock.pump([REMIND_S] * int(RENEW_TICKET_KEYS_S / REMIND_S + 1))
    assert kept.keeper.store.first_context(b"") is not before


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (0.0, None),
        (6 * DAY_S, None),
        (6 * DAY_S + 1, "expires on 1970-01-21; renew it"),
        (20 * DAY_S, "expired on 1970-01-21: clients refuse to connect; renew it"),
    ],
)
def test_the_words(now: float, expected: str | None) -> None:
    """What is wrong is said from 14 days before the end."""
    assert expiry_problem(20 * DAY_S, now) == expected
