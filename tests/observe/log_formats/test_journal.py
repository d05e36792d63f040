"""The log in the journal of systemd, against a socket that stands for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from pyryrelay.observe.log_formats.journal import JournalObserver, datagram_of, leads_to_journal
from pyryrelay.observe.log_formats.records import Record, record_of


def parsed(datagram: bytes) -> dict[str, str]:
    """Read an entry as systemd does. Fields that occur twice are an error here."""
    entry: dict[str, str] = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
            datagram = rest
        else:
            name, size = line, int.from_bytes(rest[:8], "little")
            value, datagram = rest[8 : 8 + size], rest[9 + size :]
            assert rest[8 + size : 9 + size] == b"\n"
        assert name.decode("ascii") not in entry
        entry[name.decode("ascii")] = value.decode()
    return entry


@implementer(ILogObserver)
class Fallback:
    """Records the events that the journal did not take."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The address of the journal."""
    return str(tmp_path / "journal")


@pytest.fixture
def journal(path: str) -> Iterator[socket.socket]:
    """The socket of the journal."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(path)
        bound.setblocking(False)
        yield bound


@pytest.fixture
def fallback() -> Fallback:
    """What gets the other lines."""
    return Fallback()


@pytest.fixture
def observer(path: str, fallback: Fallback) -> Iterator[JournalObserver]:
    """An observer that sends there."""
    made = JournalObserver(fallback, path)
    yield made
    made.close()


def event(**changes: object) -> LogEvent:
    """Return an event of the relay."""
    fields: LogEvent = {
        "log_time": 0.0,
        "log_level": LogLevel.warn,
        "log_namespace": "pyryrelay",
        "log_format": "jailed {client} for {seconds} s",
        "client": "192.0.2.1",
        "seconds": 600,
    }
    return {**fields, **changes}


def test_an_entry(journal: socket.socket, observer: JournalObserver, fallback: Fallback) -> None:
    """The message is the line of text without its time; the name and each field can be searched for."""
    observer(event())
    assert parsed(journal.recv(65536)) == {
        "MESSAGE": "[pyryrelay#warn] jailed 192.0.2.1 for 600 s",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "pyryrelay",
        "PYRYRELAY_LEVEL": "warn",
        "PYRYRELAY_LOGGER": "pyryrelay",
        "PYRYRELAY_EVENT": "jailed_for_s",
        "PYRYRELAY_CLIENT": "192.0.2.1",
        "PYRYRELAY_SECONDS": "600",
    }
    assert fallback.events == []


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (LogLevel.debug, "7"),
        (LogLevel.info, "6"),
        (LogLevel.warn, "4"),
        (LogLevel.error, "3"),
        (LogLevel.critical, "2"),
        ("unheard-of", "6"),
    ],
)
def test_priorities(journal: socket.socket, observer: JournalObserver, level: object, priority: str) -> None:
    """Levels become those of syslog."""
    observer(event(log_level=level))
    assert parsed(journal.recv(65536))["PRIORITY"] == priority


def test_a_traceback(journal: socket.socket, observer: JournalObserver) -> None:
    """It follows the message, in the same entry."""
    observer(event(log_failure=Failure(RuntimeError("broken"))))
    message = parsed(journal.recv(65536))["MESSAGE"]
    assert message.startswith("[pyryrelay#warn] jailed 192.0.2.1 for 600 s\n")
    assert "RuntimeError: broken" in message


def test_events_of_twisted(journal: socket.socket, observer: JournalObserver) -> None:
    """They have no name and no fields."""
    observer(event(log_namespace="twisted.web"))
    assert {*parsed(journal.recv(65536))} == {
        "MESSAGE",
        "PRIORITY",
        "SYSLOG_IDENTIFIER",
        "PYRYRELAY_LEVEL",
        "PYRYRELAY_LOGGER",
    }


def test_an_event_without_text(journal: socket.socket, observer: JournalObserver, fallback: Fallback) -> None:
    """Nothing is sent."""
    observer({})
    with pytest.raises(BlockingIOError):
        journal.recv(1)
    assert fallback.events == []


def test_no_journal(observer: JournalObserver, fallback: Fallback) -> None:
    """Where nobody listens, the line goes where it went before."""
    observer(event())
    assert len(fallback.events) == 1


def test_a_journal_that_is_started_again(
    path: str, journal: socket.socket, observer: JournalObserver, fallback: Fallback
) -> None:
    """The next event goes to the new one."""
    observer(event())
    journal.close()
    observer(event())
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(path)
        observer(event())
        assert parsed(bound.recv(65536))["PYRYRELAY_CLIENT"] == "192.0.2.1"
    assert len(fallback.events) == 1


def test_a_journal_that_is_busy(journal: socket.socket, observer: JournalObserver, fallback: Fallback) -> None:
    """The reactor does not wait for it: what it does not take goes elsewhere, and nothing is lost."""
    for _ in range(2000):
        observer(event())
    taken = 0
    while True:
        try:
            journal.recv(65536)
        except BlockingIOError:
            break
        taken += 1
    assert fallback.events
    assert taken + len(fallback.events) == 2000


def test_an_event_that_is_too_long(journal: socket.socket, observer: JournalObserver, fallback: Fallback) -> None:
    """It is written as text."""
    observer(event(client="x" * 10_000_000))
    assert len(fallback.events) == 1


@given(st.text())
def test_no_text_becomes_a_field(text: str) -> None:
    """Whatever a client sends, it stays in its field."""
    record = record_of(event(log_format="closed {server_id}: {code}", server_id=text, code=1))
    assert record is not None
    entry = parsed(datagram_of(record))
    assert entry["PYRYRELAY_SERVER_ID"] == text.encode("utf-8", "backslashreplace").decode()
    assert {*entry} == {
        "MESSAGE",
        "PRIORITY",
        "SYSLOG_IDENTIFIER",
        "PYRYRELAY_LEVEL",
        "PYRYRELAY_LOGGER",
        "PYRYRELAY_EVENT",
        "PYRYRELAY_SERVER_ID",
        "PYRYRELAY_CODE",
    }


def test_surrogates() -> None:
    """Text that UTF-8 cannot hold is escaped."""
    record = Record(0.0, "info", "pyryrelay", "x", "\ud800", {}, "")
    assert parsed(datagram_of(record))["MESSAGE"] == "[pyryrelay#info] \\ud800"


def test_where_output_leads(tmp_path: Path) -> None:
    """systemd names device and inode of the stream; any other file is not the journal, even with that variable."""
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        found = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert leads_to_journal(stream.fileno(), environ)
        assert not leads_to_journal(other.fileno(), environ)
        assert not leads_to_journal(stream.fileno(), {})
        assert not leads_to_journal(-1, environ)


def test_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the variable is that of the process."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert not leads_to_journal(1)
