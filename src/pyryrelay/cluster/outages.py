"""What operators are told of the servers of a cluster: a line when an outage begins, a line when it ends.

A reason that changes meanwhile, and other warnings, are told at most once in `REPEAT_S`; the first change of a reason
`FIRST_S` after the beginning, as the first reason is often only that a connection has ended. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from twisted.logger import Logger

__all__ = ["FIRST_S", "REPEAT_S", "Outages"]

_log = Logger(namespace="pyryrelay")

REPEAT_S: Final = 60.0
FIRST_S: Final = 5.0


class Outages:
    """Writes lines about servers, which are called by their names."""

    def __init__(self, now: Callable[[], float], warn: Callable[[str], object]) -> None:
        self._now = now
        self._warn = warn
        self._down: dict[str, tuple[float, str]] = {}
        self._warned_at: dict[str, float] = {}
        self._places: dict[str, str] = {}

    def changed(self, server: str, reason: str) -> None:
        """Note that a server can be used (""), or why it cannot."""
        down = self._down.get(server)
        if not reason:
            self._is_back(server, self._down.pop(server, None))
        elif down is None:
            self._down[server] = self._now(), reason
            self._warned_at[server] = self._now() - REPEAT_S + FIRST_S
            _log.warn(
                "server {endpoint} of the cluster cannot be used: {reason}; limits hold for each process alone",
                endpoint=server,
                reason=reason,
            )
        elif reason != down[1] and self._is_due(server):
            self._down[server] = down[0], reason
            self._warn(f"server {server} of the cluster still cannot be used: {reason}")

    def _is_back(self, server: str, down: tuple[float, str] | None) -> None:
        if down is None:
            _log.info("server {endpoint} of the cluster is used", endpoint=server)
            return
        seconds = round(self._now() - down[0], 1)
        _log.info(
            "server {endpoint} of the cluster can be used, after {seconds} s without",
            endpoint=server,
            seconds=seconds,
        )

    def leads_to(self, server: str, place: str) -> None:
        """Note which server sentinels call the primary, after they were asked; another one than before is told."""
        before, self._places[server] = self._places.get(server), place
        if before != place:
            _log.info("the primary of the cluster is {endpoint}, as its sentinels say", endpoint=place)

    def away_s(self, server: str) -> float:
        """Return for how long a server has been away; 0 if it can be used."""
        down = self._down.get(server)
        return 0.0 if down is None else self._now() - down[0]

    def warn(self, kind: str, warning: str) -> None:
        """Write a warning, at most one of its kind in `REPEAT_S`."""
        if self._is_due(kind):
            self._warn(warning)

    def _is_due(self, kind: str) -> bool:
        now = self._now()
        if now < self._warned_at.get(kind, -inf) + REPEAT_S:
            return False
        self._warned_at[kind] = now
        return True
