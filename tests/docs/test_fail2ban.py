"""The fail2ban filter against lines of the relay's own log, run by fail2ban itself."""

from __future__ import annotations

import ast
import configparser
import io
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher, textFileLogObserver
from zope.interface import implementer

from pyryrelay.guard import ClientAddress, Reason, client_address
from pyryrelay.nostr.observe.log import NostrLog
from pyryrelay.observe.log import AddressForm, EventLog
from pyryrelay.observe.log_formats.journal import datagram_of
from pyryrelay.observe.log_formats.records import record_of
from pyryrelay.pyry.log import PyryLog

CONTRIB = Path(__file__).resolve().parents[2] / "contrib" / "fail2ban"
FILTER = CONTRIB / "filter.d" / "pyryrelay.conf"
CONFIGURATION = Path("/etc/fail2ban")
DEADLINE_S = 120.0
ATTACKER = "203.0.113.66"
"""An address that is in no line, and must never be found."""

FORGED = (
    f"refused {ATTACKER} 429 rate_limit on client (0 more left out)",
    f" [pyryrelay#info] refused {ATTACKER} 429 rate_limit on client (0 more left out)",
    f"\n2026-07-01T12:00:00+0000 [pyryrelay#info] refused {ATTACKER} 429 rate_limit on client (0 more left out)",
    f"\r\n2026-07-01T12:00:00+0000 [pyryrelay#info] refused {ATTACKER} 429 a on - (0 more left out)\r\n",
    f"\u2028\x85\x0b2026-07-01T12:00:00+0000 [pyryrelay#info] refused {ATTACKER} 429 a on - (0 more left out)",
    f"' from {ATTACKER}\n",
    f'"refused {ATTACKER} 429 a on - (0 more left out)',
)
UNSPACED = f"x'[pyryrelay#info]refused:{ATTACKER}:429(0_more_left_out)"
"""The closest that a server-id can get: printable ASCII without spaces."""

needs_fail2ban = pytest.mark.skipif(
    shutil.which("fail2ban-regex") is None, reason="the command 'fail2ban-regex' is missing (Debian: fail2ban)"
)


def address(text: str) -> ClientAddress:
    """Return a client."""
    client = client_address(text)
    assert client is not None
    return client


class Now:
    """A clock on which each line is far enough from the last to be written."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 60.0
        return self.now


@contextmanager
def log_file(make: Callable[[io.StringIO], ILogObserver] = textFileLogObserver) -> Iterator[io.StringIO]:
    """Write everything that is logged meanwhile to a file, as `twistd --logfile` does."""
    file = io.StringIO()
    observer = make(file)
    globalLogPublisher.addObserver(observer)
    try:
        yield file
    finally:
        globalLogPublisher.removeObserver(observer)


def found_by(directory: Path, log_text: str, filter_file: Path = FILTER) -> list[str]:
    """Return the addresses that fail2ban finds in a log, one for each line that matches."""
    log = directory / "relay.log"
    log.write_text(log_text, encoding="utf-8", newline="")
    outcome = subprocess.run(
        ["fail2ban-regex", "--encoding", "utf-8", "--out", "ip", str(log), str(filter_file)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert outcome.returncode in (0, 1), outcome.stderr
    assert "ERROR" not in outcome.stdout + outcome.stderr
    return outcome.stdout.split()


def refusals(form: AddressForm, clients: Iterable[ClientAddress | None]) -> str:
    """Return the log of one refusal of each client."""
    with log_file() as file:
        log = EventLog(form, Now())
        for client in clients:
            log.refused("client", 429, Reason.RATE_LIMIT, client)
    return file.getvalue()


@needs_fail2ban
def test_refused_clients_are_found(tmp_path: Path) -> None:
    """IPv4 and IPv6 addresses are found in the form in which they are logged."""
    clients = ["192.0.2.1", "2001:db8::1", "::1", "2001:db8:1:2:3:4:5:6", "::ffff:198.51.100.7"]
    log = refusals("full", map(address, clients))
    assert found_by(tmp_path, log) == [*clients[:-1], "198.51.100.7"]


@needs_fail2ban
def test_refusals_that_a_client_can_help_are_found(tmp_path: Path) -> None:
    """4xx refusals on any route are found, except those that a client cannot help.

    These are refusals for the relay's own limits, requests that a web page makes its visitors send, and those that may
    be a proxy's.
    """
    cases: list[tuple[str | None, int, str]] = [(None, 403, Reason.DENIED), (None, 408, "slow_head")]
    cases += [(route, 429, reason) for route in ("client", "server") for reason in (Reason.RATE_LIMIT, "bad_handshake")]
    with log_file() as file:
        log = EventLog("full", Now())
        for number, (route, status, reason) in enumerate(cases):
            log.refused(route, status, reason, address(f"192.0.2.{number}"))
        log.refused(None, 503, Reason.GLOBAL_CAP, address(ATTACKER))
        log.refused(None, 0, "untrusted_proxy", address(ATTACKER))
        log.refused("client", 503, "draining", address(ATTACKER))
        for reason in ("no_upgrade", "unknown_path", "bad_method", "bad_head", "head_too_large", "http_rate_limit"):
            log.refused("client", 431, reason, address(ATTACKER))
    assert found_by(tmp_path, file.getvalue()) == [f"192.0.2.{number}" for number in range(len(cases))]


@needs_fail2ban
def test_senders_of_forged_events_are_found(tmp_path: Path) -> None:
    """Of the refused events those are found that no honest client sends, and nothing else about Nostr."""
    words = ("credential", "id", "signature")
    with log_file() as file:
        log = NostrLog(EventLog("full", Now()))
        for number, word in enumerate(words):
            log.refused("EVENT", address(f"192.0.2.{number}"), word)
        for word in ("rate_limit", "key_rate_limit", "kind", "shape", "expired", "protected", "store"):
            log.refused("EVENT", address(ATTACKER), word)
        for verb in ("REQ", "AUTH"):
            log.refused(verb, address(ATTACKER), "signature")
        log.slow_client(address(ATTACKER))
    assert found_by(tmp_path, file.getvalue()) == [f"192.0.2.{number}" for number in range(len(words))]


@needs_fail2ban
def test_jailed_addresses_are_found(tmp_path: Path) -> None:
    """The line of a ban matches, and so does a refusal of an address that goes on while jailed."""
    clients = [address("192.0.2.1"), address("2001:db8::1")]
    with log_file() as file:
        log = EventLog("full", Now())
        for times, client in enumerate(clients, 1):
            log.jailed(client, 600.0 * times, times)
        log.refused(None, 403, Reason.JAILED, address("192.0.2.2"))
    assert found_by(tmp_path, file.getvalue()) == [*map(str, clients), "192.0.2.2"]


@needs_fail2ban
def test_a_ban_without_an_address_does_not_match(tmp_path: Path) -> None:
    """A network, hash or dash in the line of a ban is not taken for an address."""
    with log_file() as file:
        forms: tuple[AddressForm, ...] = ("prefix", "hashed", "none")
        for form in forms:
            EventLog(form, Now()).jailed(address(ATTACKER), 600.0, 1)
    assert file.getvalue().count("jailed") == 3
    assert found_by(tmp_path, file.getvalue()) == []


@needs_fail2ban
def test_a_line_that_sums_up_is_found(tmp_path: Path) -> None:
    """The number of refusals that a line left out does not matter."""
    times = iter([0.0, 1.0, 2.0, 60.0])
    with log_file() as file:
        log = EventLog("full", lambda: next(times))
        for _ in range(4):
            log.refused("client", 429, Reason.RATE_LIMIT, address("192.0.2.1"))
    assert "(2 more left out)" in file.getvalue()
    assert found_by(tmp_path, file.getvalue()) == ["192.0.2.1", "192.0.2.1"]


@needs_fail2ban
@pytest.mark.parametrize("form", ["prefix", "hashed", "none"])
def test_forms_without_an_address_do_not_match(tmp_path: Path, form: str) -> None:
    """A network, hash or dash in a refusal is not taken for an address, nor looked up as a name."""
    log = refusals(cast(AddressForm, form), [address("192.0.2.1"), address("2001:db8::1"), None])
    assert log.count("refused") == 3
    assert found_by(tmp_path, log) == []


@needs_fail2ban
def test_a_client_that_cannot_be_named_is_not_found(tmp_path: Path) -> None:
    """The refusal of a client without an address does not match."""
    assert found_by(tmp_path, refusals("full", [None])) == []


def everything_else(log: EventLog, text: str) -> None:
    """Log every event that quotes text of a client."""
    client = address("192.0.2.99")
    PyryLog(log).claimed(text, text, client, 7)
    PyryLog(log).registered(text, text, text, client, 7)
    PyryLog(log).released(text, 1000, 7)
    PyryLog(log).unregistered(text, text, 1000, 7)
    PyryLog(log).closed_by_registry(text, 4404, "no server with that id", 7)
    PyryLog(log).envelope_dropped(text, "missing_frame", 1, 7)
    PyryLog(log).push_wake_dropped(text, 1, 7)


@needs_fail2ban
def test_forged_lines_do_not_match(tmp_path: Path) -> None:
    """Device names, versions and server-ids that imitate a refusal do not match."""
    with log_file() as file:
        log = EventLog("full", Now())
        for text in (*FORGED, UNSPACED):
            everything_else(log, text)
        log.refused("client", 429, Reason.RATE_LIMIT, address("192.0.2.1"))
        for text in FORGED:
            Logger(namespace="another").info("{text}", text=text)
    assert file.getvalue().count(ATTACKER) > 50
    assert found_by(tmp_path, file.getvalue()) == ["192.0.2.1"]


JOURNAL_LINE = Path(__file__).parents[1] / "data" / "journal-line.txt"
"""One line as journalctl prints it."""
JOURNAL = "relay.example.net twistd[812]: "
"""The prefix that fail2ban puts before each message from the journal."""


@needs_fail2ban
def test_a_line_of_the_journal_is_found(tmp_path: Path) -> None:
    """A line in a file that the journal was written to matches."""
    assert found_by(tmp_path, JOURNAL_LINE.read_text(encoding="utf-8")) == ["198.51.100.11"]


@needs_fail2ban
def test_the_journal_is_searched_as_the_file_is(tmp_path: Path) -> None:
    """The filter finds the same addresses in lines of the journal as in the file, forged lines included."""
    with log_file() as file:
        log = EventLog("full", Now())
        for text in FORGED:
            everything_else(log, f"{JOURNAL}{text}")
        log.jailed(address("2001:db8::1"), 600.0, 1)
        log.refused("client", 429, Reason.RATE_LIMIT, address("192.0.2.1"))
    lines = file.getvalue().splitlines(keepends=True)
    assert found_by(tmp_path, "".join(f"{JOURNAL}{line}" for line in lines)) == ["2001:db8::1", "192.0.2.1"]


def test_the_journal_with_fields_is_searched_too() -> None:
    """Messages that the relay hands to the journal itself have no time, and match as well."""
    found: list[LogEvent] = []

    @implementer(ILogObserver)
    class Observer:
        """Records the events."""

        def __call__(self, event: LogEvent) -> None:
            found.append(event)

    observer = Observer()
    globalLogPublisher.addObserver(observer)
    try:
        log = EventLog("full", Now())
        log.refused("client", 429, Reason.RATE_LIMIT, address("192.0.2.1"))
        for text in FORGED:
            everything_else(log, text)
    finally:
        globalLogPublisher.removeObserver(observer)
    messages = []
    for event in found:
        record = record_of(event)
        assert record is not None
        messages.append(datagram_of(record).partition(b"\n")[0].decode().removeprefix("MESSAGE="))
    lines = [f"relay.example.net pyryrelay[812]: {message}" for message in messages]
    assert [line for line in lines if any(expression.match(line) for expression in FAILREGEXES)] == lines[:1]


def test_the_filter_names_the_unit_of_the_journal() -> None:
    """The filter's unit is the one that the documentation installs."""
    assert definition()["journalmatch"] == "_SYSTEMD_UNIT=pyryrelay.service"


def definition() -> configparser.SectionProxy:
    """Return the definition of the filter, with its variables filled in."""
    parser = configparser.ConfigParser()
    parser.read(FILTER, encoding="utf-8")
    return parser["Definition"]


def as_python(pattern: str) -> re.Pattern[str]:
    """Return the filter's pattern with its address as a group."""
    return re.compile(pattern.replace("<ADDR>", r"(\S+)"))


def without_time(line: str) -> str:
    """Return a line of the file after fail2ban has taken off its time."""
    return re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", "", line)


PATTERNS = definition()["failregex"].split("\n")
FAILREGEXES = [as_python(pattern) for pattern in PATTERNS]


@settings(max_examples=200)
@given(st.lists(st.one_of(st.text(), st.sampled_from(FORGED)), max_size=3).map("".join))
@example(FORGED[2])
def test_no_text_of_a_client_begins_a_line(text: str) -> None:
    """Text of a client never begins a line, nor makes a line match."""
    with log_file() as file:
        everything_else(EventLog("full", Now()), text)
    lines = file.getvalue().split("\n")
    assert len(lines) == 8
    for line in lines:
        seen = (without_time(line), f"{JOURNAL}{line}")
        assert not any(expression.match(text) for text in seen for expression in FAILREGEXES)


def test_the_patterns_as_python_reads_them_match() -> None:
    """The patterns match real lines in Python as well, so that the test above checks something."""
    with log_file() as file:
        log = EventLog("full", Now())
        log.refused("client", 429, Reason.RATE_LIMIT, address("192.0.2.1"))
        NostrLog(log).refused("EVENT", address("192.0.2.1"), "signature")
        log.jailed(address("192.0.2.1"), 600.0, 1)
    lines = file.getvalue().splitlines()
    for seen in (map(without_time, lines), [f"{JOURNAL}{line}" for line in lines]):
        found = [expression.fullmatch(text) for expression, text in zip(FAILREGEXES, seen, strict=True)]
        assert [match and match[1] for match in found] == ["192.0.2.1"] * 3


@needs_fail2ban
@pytest.mark.skipif(not (CONFIGURATION / "jail.conf").is_file(), reason=f"{CONFIGURATION} has no jail.conf")
def test_the_jail_is_one_that_fail2ban_accepts(tmp_path: Path) -> None:
    """fail2ban accepts the jail beside the distribution's configuration, with our filter, log and times."""
    for name in ("fail2ban.conf", "jail.conf", "action.d", *(path.name for path in CONFIGURATION.glob("paths-*.conf"))):
        (tmp_path / name).symlink_to(CONFIGURATION / name)
    shutil.copytree(CONTRIB / "filter.d", tmp_path / "filter.d")
    log = tmp_path / "relay.log"
    log.touch()
    (tmp_path / "jail.d").mkdir()
    snippet = (CONTRIB / "jail.d" / "pyryrelay.conf").read_text(encoding="utf-8")
    (tmp_path / "jail.d" / "pyryrelay.conf").write_text(
        snippet.replace("/var/log/pyryrelay/relay.log", str(log)), encoding="utf-8"
    )
    outcome = subprocess.run(
        ["fail2ban-client", "-c", str(tmp_path), "-d"], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    commands = [ast.literal_eval(line) for line in outcome.stdout.splitlines() if line.startswith("[")]
    mine = [command[2:] for command in commands if command[:2] == ["set", "pyryrelay"]]
    for expected in (["addlogpath", str(log), "head"], ["maxretry", 5], ["findtime", "2m"], ["bantime", "10m"]):
        assert expected in mine
    assert ["add", "pyryrelay"] in [command[:2] for command in commands]
    assert ["start", "pyryrelay"] in commands
    (patterns,) = [command[3] for command in commands if command[:3] == ["multi-set", "pyryrelay", "addfailregex"]]
    assert patterns == PATTERNS
