"""The log: it never contains a frame, a token or a set of headers, and never fills the disk.

Every log call of this package uses a literal format and fields from `ALLOWED_FIELDS`; a test checks the source for it.
Refusals and drops are logged at most once in 10 s for each address and reason, with the number of events left out since
the last line, and at most 20 times a second in total. Events that no line counts are summed up in another. There is no
limit on lines about admitted connections, which the quotas limit, and about jailed addresses, since it takes many
refusals to cause one. Times are seconds on a monotonic clock.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Hashable
from math import inf
from typing import Final, Literal, TypeAlias

from twisted.internet.interfaces import IDelayedCall

from pyryrelay.guard import ClientAddress
from pyryrelay.logger import UnfilteredLogger

_log = UnfilteredLogger(namespace="pyryrelay")

AddressForm = Literal["full", "prefix", "hashed", "none"]

ALLOWED_FIELDS: Final = frozenset(
    {
        "client",
        "code",
        "count",
        "date",
        "endpoint",
        "kind",
        "left_out",
        "names",
        "pid",
        "reason",
        "route",
        "seconds",
        "size_bytes",
        "status",
        "version",
        "warning",
        "worker",
    }
)
"""The only fields of log events, in addition to those that protocols bring (`ProtocolOptions.log_fields`)."""

CallSoon: TypeAlias = Callable[[Callable[[], None]], IDelayedCall]
"""Schedules a call for the end of the reactor's turn."""

MAX_PENDING_LINES: Final = 256
"""How many lines may wait for the end of a turn."""
INTERVAL_S = 10.0
"""Minimum interval between lines about one key."""
LINES_PER_S = 20
MAX_TRACKED = 4096


class AddressFormatter:
    """Formats client addresses in the form that the operator chose.

    ``hashed`` is a keyed hash whose key is as old as the process: equal addresses have equal hashes, and no address can
    be computed from its hash.
    """

    def __init__(self, form: AddressForm) -> None:
        self.form = form
        self._key = secrets.token_bytes(32)

    def __call__(self, client: ClientAddress | None) -> str:
        """Return one word; ``unknown`` if no address could be derived."""
        if self.form == "none":
            return "-"
        if client is None:
            return "unknown"
        if self.form == "full":
            return str(client)
        if self.form == "prefix":
            return client.prefix_text()
        return self._hashed(str(client))

    def network(self, client: ClientAddress) -> str:
        """Return the network of a client, in the same form."""
        if self.form == "none":
            return "-"
        return self._hashed(client.prefix_text()) if self.form == "hashed" else client.prefix_text()

    def _hashed(self, text: str) -> str:
        return hmac.new(self._key, text.encode("ascii"), hashlib.sha256).hexdigest()[:16]


class LineLimiter:
    """PURE: decides which of many similar events get a line.

    Each key has at most one line in ``interval_s``, all keys together have at most ``lines_per_s``, and at most
    ``max_tracked`` keys are remembered.
    """

    def __init__(
        self, interval_s: float = INTERVAL_S, lines_per_s: int = LINES_PER_S, max_tracked: int = MAX_TRACKED
    ) -> None:
        self._interval_s = interval_s
        self._lines_per_s = lines_per_s
        self._max_tracked = max_tracked
        self._last: dict[Hashable, list[float]] = {}
        self._second = 0
        self._lines = 0
        self._unreported = 0

    def note(self, key: Hashable, now: float, count: int = 1) -> int | None:
        """Record ``count`` events.

        Returns how many events of ``key`` a line about one of them leaves out, or None if there is to be no line.
        """
        state = self._last.get(key)
        if state is None:
            return self._begin(key, now, count)
        if now - state[0] >= self._interval_s and self._take_line(now):
            left_out = int(state[1])
            state[:] = now, 0
            return left_out + count - 1
        state[1] += count
        return None

    def _begin(self, key: Hashable, now: float, count: int) -> int | None:
        """Record the first events of a key, and remember the key if there is room."""
        has_line = self._take_line(now)
        if len(self._last) < self._max_tracked:
            self._last[key] = [now, 0] if has_line else [-inf, count]
        elif not has_line:
            self._unreported += count
        return count - 1 if has_line else None

    def _take_line(self, now: float) -> bool:
        second = int(now)
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        return self._lines <= self._lines_per_s

    def sweep(self, now: float) -> int:
        """Forget keys without a line for an interval, and return how many events no line has counted or will count.

        Call it once in every interval. Its cost is bounded by ``max_tracked``.
        """
        silent = [key for key, (at, _) in self._last.items() if now - at >= self._interval_s]
        unreported = self._unreported + int(sum(self._last.pop(key)[1] for key in silent))
        self._unreported = 0
        return unreported


class EventLog:
    """Writes log lines about refusals, bans and proxies; protocols write their lines through it as well.

    With ``call_soon``, the lines of a turn of the reactor are written together at its end. Formatting is a lot of code,
    which is then loaded into the processor's caches once, and not between any two upgrades. Without ``call_soon``, and
    after `stop`, each line is written at once.
    """

    def __init__(self, form: AddressForm, now: Callable[[], float], call_soon: CallSoon | None = None) -> None:
        self._text = AddressFormatter(form)
        self._now = now
        self._limiter = LineLimiter()
        self._call_soon = call_soon
        self._call: IDelayedCall | None = None
        self._lines: list[Callable[[], None]] = []

    def write(self, line: Callable[[], None]) -> None:
        """Write a line at the end of the turn; see `pyryrelay.protocol.LineWriter`."""
        if self._call_soon is None:
            line()
            return
        self._lines.append(line)
        if len(self._lines) >= MAX_PENDING_LINES:
            self._flush()
        elif self._call is None:
            self._call = self._call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._call = None
        self._flush()

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        for line in lines:
            line()

    def stop(self) -> None:
        """Write the lines that wait, and from now on each line at once."""
        self._call_soon = None
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._flush()

    def configure(self, form: AddressForm) -> None:
        """Log client addresses in this form from now on. Hashes stay the same."""
        self._text.form = form

    @property
    def address_form(self) -> AddressForm:
        """The form of client addresses."""
        return self._text.form

    def address(self, client: ClientAddress | None) -> str:
        """Return a client address in the form that the operator chose."""
        return self._text(client)

    def note(self, key: Hashable, count: int = 1) -> int | None:
        """Record events whose lines are limited; see `pyryrelay.protocol.LineWriter`."""
        return self._limiter.note(key, self._now(), count)

    def warn(self, warning: str) -> None:
        """Write a warning for the operator at once."""
        _log.warn("{warning}", warning=warning)

    def sweep(self) -> None:
        """Sum up the events that no line counts. Call it once in `INTERVAL_S`."""
        count = self._limiter.sweep(self._now())
        if count:
            self.write(
                lambda: _log.info("{count} more refusals and drops since the last lines about them", count=count)
            )

    def refused(self, route: str | None, status: int, reason: str, client: ClientAddress | None) -> None:
        """Log a refusal, unless there are too many like it."""
        key = None if client is None else client.key
        left_out = self._limiter.note((key, reason), self._now())
        if left_out is not None:
            self.write(
                lambda: _log.info(
                    "refused {client} {status} {reason} on {route} ({left_out} more left out)",
                    client=self._text(client),
                    status=status,
                    reason=str(reason),
                    route=route or "-",
                    left_out=left_out,
                )
            )

    def wrong_token(self, client: ClientAddress | None) -> None:
        """Warn that a client of the admin listener sent a wrong token, unless there are too many like it."""
        left_out = self._limiter.note((None if client is None else client.key, "wrong token"), self._now())
        if left_out is not None:
            self.write(
                lambda: _log.warn(
                    "wrong token on the admin listener from {client} ({left_out} more left out)",
                    client=self._text(client),
                    left_out=left_out,
                )
            )

    def jailed(self, client: ClientAddress, seconds: float, times: int, *, with_network: bool = False) -> None:
        """Log that an address, or the whole network around it, is jailed.

        This line is never left out: it takes `--jail-after` refusals to cause one. It ends like the line of a refusal,
        because fail2ban filters match both.
        """
        text = self._text.network if with_network else self._text
        self.write(
            lambda: _log.warn(
                "jailed {client} for {seconds} s, time {count} ({left_out} more left out)",
                client=text(client),
                seconds=round(seconds),
                count=times,
                left_out=0,
            )
        )

    def proxy_suspected(self, client: ClientAddress, reason: str, warning: str) -> None:
        """Warn that nearly all attempts come from one address, which is probably a proxy."""
        self.write(
            lambda: _log.warn(
                "over 90 % of the upgrade attempts of the last minutes come from {client}, {reason}: all clients "
                "behind it share one quota. {warning}; `pyryrelay whoami` explains what is derived",
                client=self._text(client),
                reason=reason,
                warning=warning,
            )
        )

    def proxy_jailed(self, client: ClientAddress, reason: str, warning: str) -> None:
        """Warn that an address which is probably a proxy is jailed."""
        self.write(
            lambda: _log.warn(
                "{client} is jailed, {reason}: all clients behind it are locked out. {warning}, and release it",
                client=self._text(client),
                reason=reason,
                warning=warning,
            )
        )
