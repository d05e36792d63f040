"""Log lines about binaries and phones: never with a frame or a token, and with text of clients cut to a length."""

from __future__ import annotations

from typing import Final

from pyryrelay.guard import ClientAddress
from pyryrelay.logger import UnfilteredLogger
from pyryrelay.protocol import LineWriter

_log = UnfilteredLogger(namespace="pyryrelay")

LOG_FIELDS: Final = frozenset({"conn_id", "connection", "device_name", "server_id"})
"""The fields of these lines, in addition to those that every room may use."""
_MAX_TEXT: Final = 64


class PyryLog:
    """Writes the `pyryrelay.pyry.relay.Events` of a relay as log lines."""

    def __init__(self, lines: LineWriter) -> None:
        self._lines = lines

    def claimed(self, server_id: str, version: str, client: ClientAddress, connection: int) -> None:
        """Log that a binary has become the holder of a server-id."""
        self._lines.write(
            lambda: _log.info(
                "binary claimed {server_id!r} version {version!r} from {client}, connection {connection}",
                server_id=server_id,
                version=version[:_MAX_TEXT],
                client=self._lines.address(client),
                connection=connection,
            )
        )

    def released(self, server_id: str, code: int, connection: int) -> None:
        """Log that the connection of a binary ended."""
        self._lines.write(
            lambda: _log.info(
                "binary of {server_id!r} gone, code {code}, connection {connection}",
                server_id=server_id,
                code=code,
                connection=connection,
            )
        )

    def registered(
        self, server_id: str, conn_id: str, device_name: str, client: ClientAddress, connection: int
    ) -> None:
        """Log that a phone is registered under a server-id."""
        self._lines.write(
            lambda: _log.info(
                "phone {conn_id!r} of {server_id!r} registered, device {device_name!r} from {client}, "
                "connection {connection}",
                conn_id=conn_id,
                server_id=server_id,
                device_name=device_name[:_MAX_TEXT],
                client=self._lines.address(client),
                connection=connection,
            )
        )

    def unregistered(self, server_id: str, conn_id: str, code: int, connection: int) -> None:
        """Log that the connection of a phone ended."""
        self._lines.write(
            lambda: _log.info(
                "phone {conn_id!r} of {server_id!r} gone, code {code}, connection {connection}",
                conn_id=conn_id,
                server_id=server_id,
                code=code,
                connection=connection,
            )
        )

    def closed_by_registry(self, server_id: str, code: int, reason: str, connection: int) -> None:
        """Log that the registry refused or closed a connection."""
        left_out = self._lines.note((server_id, code))
        if left_out is not None:
            self._lines.write(
                lambda: _log.info(
                    "closed a peer of {server_id!r}, connection {connection}: {code} {reason} "
                    "({left_out} more left out)",
                    server_id=server_id,
                    connection=connection,
                    code=code,
                    reason=reason,
                    left_out=left_out,
                )
            )

    def envelope_dropped(self, server_id: str, kind: str, count: int, connection: int) -> None:
        """Log that envelopes of a binary could not be delivered."""
        left_out = self._lines.note((server_id, kind), count)
        if left_out is not None:
            self._lines.write(
                lambda: _log.info(
                    "dropped an envelope of {server_id!r}, connection {connection}: {kind} ({left_out} more left out)",
                    server_id=server_id,
                    connection=connection,
                    kind=str(kind),
                    left_out=left_out,
                )
            )

    def push_wake_dropped(self, server_id: str, count: int, connection: int) -> None:
        """Log that push wakes of a binary were dropped, because the relay sends none."""
        self.envelope_dropped(server_id, "push_wake", count, connection)

    def push_wake_failed(self, server_id: str, outcome: str, reason: str, connection: int) -> None:
        """Log that a phone was not woken."""
        left_out = self._lines.note((server_id, outcome, reason))
        if left_out is not None:
            self._lines.write(
                lambda: _log.info(
                    "push wake of {server_id!r}, connection {connection}: {kind}, {reason} ({left_out} more left out)",
                    server_id=server_id,
                    connection=connection,
                    kind=str(outcome),
                    reason=str(reason),
                    left_out=left_out,
                )
            )
