"""Log lines about the Nostr relay: never with content, tags, filters, challenges, keys or credentials.

What clients can repeat is limited: one line in 10 s for each client and reason.
"""

from __future__ import annotations

from typing import Final

from pyryrelay.guard import ClientAddress
from pyryrelay.logger import UnfilteredLogger
from pyryrelay.protocol import LineWriter

_log = UnfilteredLogger(namespace="pyryrelay")

LOG_FIELDS: Final = frozenset({"until_s"})
"""The fields of these lines that no other room uses."""


class NostrLog:
    """Writes what the relay reports as log lines."""

    def __init__(self, lines: LineWriter) -> None:
        self._lines = lines

    def refused(self, verb: str, client: ClientAddress | None, word: str) -> None:
        """Log that an event, a filter or an authentication was refused; ``word`` is that of the metrics."""
        left_out = self._lines.note((None if client is None else client.key, verb, word))
        if left_out is not None:
            self._lines.write(
                lambda: _log.info(
                    "refused {kind} of {client}: {reason} ({left_out} more left out)",
                    kind=verb,
                    client=self._lines.address(client),
                    reason=word,
                    left_out=left_out,
                )
            )

    def slow_client(self, client: ClientAddress | None) -> None:
        """Log that a client was closed because it does not read what it is sent."""
        left_out = self._lines.note((None if client is None else client.key, "reads too slowly"))
        if left_out is not None:
            self._lines.write(
                lambda: _log.info(
                    "closed {client}, which reads too slowly ({left_out} more left out)",
                    client=self._lines.address(client),
                    left_out=left_out,
                )
            )

    def store_opened(self, events: int, size_bytes: int, version: int) -> None:
        """Log that the database is open: how many events it has, its size, and the version of its tables."""
        self._lines.write(
            lambda: _log.info(
                "the database of events is open: {count} events, {size_bytes} bytes, version {version}",
                count=events,
                size_bytes=size_bytes,
                version=version,
            )
        )

    def store_health(self, is_writable: bool, cause: str) -> None:
        """Log that the database cannot be written any more, or can again."""
        if is_writable:
            self._lines.write(lambda: _log.info("the database of events can be written again"))
        else:
            self._lines.write(
                lambda: _log.error(
                    "the database of events cannot be written: {reason}; events are refused until it can", reason=cause
                )
            )

    def clock_jumped(self, jump_s: int) -> None:
        """Log that the wall clock was set: events expire, and are too old or too new, by that clock."""
        self._lines.write(
            lambda: _log.warn(
                "the clock of this machine was set by {seconds} s; times of events are compared with it", seconds=jump_s
            )
        )

    # Events between hosts; see `pyryrelay.nostr.replication.replication.Log`.

    def sharing_events(self, waiting: int) -> None:
        """Log that events are shared with other hosts, and how many are announced now."""
        self._lines.write(lambda: _log.info("events are shared with the other hosts of the cluster"))
        if waiting:
            self._lines.write(
                lambda: _log.info(
                    "the newest {count} events are announced to the other hosts, some perhaps again", count=waiting
                )
            )

    def announcing_stopped(self, reason: str) -> None:
        """Log that events wait to be announced."""
        self._lines.write(
            lambda: _log.warn(
                "events are not announced to the other hosts: {reason}; they wait in the database", reason=reason
            )
        )

    def announcing_again(self, waiting: int) -> None:
        """Log that what has waited is being announced."""
        self._lines.write(
            lambda: _log.info("events are announced to the other hosts again; {count} wait", count=waiting)
        )

    def asking_again(self, seconds: int) -> None:
        """Log that others are asked for the events of so many seconds."""
        self._lines.write(
            lambda: _log.info(
                "the cluster has lost entries that were perhaps not read here: the other hosts are asked for the "
                "events of the last {seconds} s",
                seconds=seconds,
            )
        )

    def announcing_once_more(self, count: int) -> None:
        """Log that events are announced again because another host asked for them."""
        self._lines.write(
            lambda: _log.info("another host asks for events that it may have missed: {count} wait for it", count=count)
        )

    def asking_for_trimmed(self, seconds: int, until: int) -> None:
        """Log that others are asked for the events that were announced between so many seconds ago."""
        self._lines.write(
            lambda: _log.info(
                "the cluster did not keep events until they were read here: the other hosts are asked for those that "
                "they announced between {seconds} s and {until_s} s ago",
                seconds=seconds,
                until_s=until,
            )
        )

    def trimmed_given(self) -> None:
        """Log that another host has announced all of those again."""
        self._lines.write(
            lambda: _log.info("another host has announced again what the cluster did not keep until it was read here")
        )

    def events_missed(self) -> None:
        """Log that events of other hosts are missing here, and that no host announces them again."""
        left_out = self._lines.note("events that another host cannot announce again")
        if left_out is not None:
            self._lines.write(
                lambda: _log.warn(
                    "events of other hosts may be missing here: the cluster has lost them, and they were not all "
                    "announced again; export them there and import them here"
                )
            )

    def not_announced(self, size: int) -> None:
        """Log that an event is too large to be announced."""
        left_out = self._lines.note("an event that is too large to be announced")
        if left_out is not None:
            self._lines.write(
                lambda: _log.warn(
                    "an event of {size_bytes} bytes is too large to be announced to the other hosts "
                    "({left_out} more left out)",
                    size_bytes=size,
                    left_out=left_out,
                )
            )

    def host_lies(self, word: str) -> None:
        """Log that a member of the cluster has announced what no event is; ``word`` is that of the metrics."""
        left_out = self._lines.note(("a host that lies", word))
        if left_out is not None:
            self._lines.write(
                lambda: _log.error(
                    "another host of the cluster has announced a wrong event: {reason} ({left_out} more left out)",
                    reason=word,
                    left_out=left_out,
                )
            )

    def child_ended(self, role: str, reason: str, delay_s: float) -> None:
        """Log that a child process has ended by itself, and is started again after ``delay_s``."""
        self._lines.write(
            lambda: _log.warn(
                "a {kind} of events has ended: {reason}; starting another in {seconds} s",
                kind=role,
                reason=reason,
                seconds=round(delay_s),
            )
        )
