"""The log in the journal of systemd, with fields, by its native protocol.

systemd says in ``JOURNAL_STREAM`` which file is its journal: the device and the inode of standard output, if that leads
there. Then each event is one datagram. If the journal does not take it at once, because it is busy or gone, or because
the event is too long, the line goes to standard output as text, which is the journal as well.

Source: systemd, "Native Journal Protocol"; sd-daemon(3), systemd.exec(5).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from pyryrelay.observe.log_formats.records import Record, record_of

SOCKET: Final = "/run/systemd/journal/socket"
IDENTIFIER: Final = "pyryrelay"
PREFIX: Final = "PYRYRELAY_"
PRIORITIES: Final[Mapping[str, int]] = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}
"""Priorities of syslog(3) by the name of a level."""
_INFO: Final = 6


def leads_to_journal(descriptor: int, environ: Mapping[str, str] | None = None) -> bool:
    """Return whether a descriptor is the journal of systemd."""
    environ = os.environ if environ is None else environ
    named = environ.get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return named == f"{found.st_dev}:{found.st_ino}"


def datagram_of(record: Record) -> bytes:
    """Return the entry of a record. ``MESSAGE`` is the line of text, without its time."""
    message = f"[{record.logger}#{record.level}] {record.message}"
    entry: dict[str, object] = {
        "MESSAGE": f"{message}\n{record.traceback}" if record.traceback else message,
        "PRIORITY": PRIORITIES.get(record.level, _INFO),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        f"{PREFIX}LEVEL": record.level,
        f"{PREFIX}LOGGER": record.logger,
    }
    if record.event:
        entry[f"{PREFIX}EVENT"] = record.event
    entry |= {f"{PREFIX}{name.upper()}": value for name, value in record.fields.items()}
    return b"".join(_field(name, str(value)) for name, value in entry.items())


def _field(name: str, value: str) -> bytes:
    """Return one field. A value that could end the field is preceded by its length, in 8 bytes, little-endian."""
    # Text of clients may hold lone surrogates, which UTF-8 cannot.
    content = value.encode("utf-8", "backslashreplace")
    if b"\n" in content:
        return name.encode("ascii") + b"\n" + len(content).to_bytes(8, "little") + content + b"\n"
    return name.encode("ascii") + b"=" + content + b"\n"


@implementer(ILogObserver)
class JournalObserver:
    """Sends events to the journal, and to ``fallback`` if it does not take them."""

    def __init__(self, fallback: Callable[[LogEvent], None], path: str = SOCKET) -> None:
        self._fallback = fallback
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # A journal that is busy must not hold up the reactor.
        self._socket.setblocking(False)

    def __call__(self, event: LogEvent) -> None:
        record = record_of(event)
        if record is None:
            return
        try:
            self._socket.sendto(datagram_of(record), self._path)
        except OSError:
            self._fallback(event)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
