"""What is logged: never a frame, a token or a header set, and never more than a disk can take.

Every log call of this package uses a literal format and fields from `ALLOWED_FIELDS`; a test reads the source to see
to it. Refusals and drops are logged once per address and reason in 10 s, with the number left out since, and share 20
lines a second; what no line tells is summed up. Connections that were admitted, which the quotas bound, and addresses
that are jailed, which takes many refusals, get their line each. Times are seconds of a monotonic clock.
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
        "endpoint",
        "kind",
        "left_out",
        "reason",
        "route",
        "seconds",
        "status",
        "version",
        "warning",
    }
)
"""The only fields that a log event may carry, beside those that protocols bring (`ProtocolOptions.log_fields`)."""

Later: TypeAlias = Callable[[Callable[[], None]], IDelayedCall]
"""Calls something soon."""

MOST_LINES: Final = 256
"""How many wait at most for the end of a turn."""
INTERVAL_S = 10.0
LINES_PER_S = 20
MAX_TRACKED = 4096


class AddressFormatter:
    """A client address in the form that the operator chose.

    ``hashed`` is a keyed hash whose key lives as long as the process: equal addresses can be told to be equal, and
    nobody can compute them back.
    """

    def __init__(self, form: AddressForm) -> None:
        self.form = form
        self._key = secrets.token_bytes(32)

    def __call__(self, client: ClientAddress | None) -> str:
        """One word; ``unknown`` where no address could be derived."""
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
        """The network around a client, in the same form."""
        if self.form == "none":
            return "-"
        return self._hashed(client.prefix_text()) if self.form == "hashed" else client.prefix_text()

    def _hashed(self, text: str) -> str:
        return hmac.new(self._key, text.encode("ascii"), hashlib.sha256).hexdigest()[:16]


class LineLimiter:
    """PURE: which of many similar events get a line.

    One line for each key in ``interval_s``, ``lines_per_s`` over all keys, ``max_tracked`` keys remembered.
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
        self._untold = 0

    def note(self, key: Hashable, now: float, count: int = 1) -> int | None:
        """``count`` events happened: how many of their key a line about one of them leaves out, or None for no line."""
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
        """Note the first events of a key, as far as there is room."""
        is_told = self._take_line(now)
        if len(self._last) < self._max_tracked:
            self._last[key] = [now, 0] if is_told else [-inf, count]
        elif not is_told:
            self._untold += count
        return count - 1 if is_told else None

    def _take_line(self, now: float) -> bool:
        second = int(now)
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        return self._lines <= self._lines_per_s

    def sweep(self, now: float) -> int:
        """Forget keys that were silent for an interval; how many events no line has told of, or will.

        Call it once in every interval: what it costs is bounded by ``max_tracked``.
        """
        silent = [key for key, (at, _) in self._last.items() if now - at >= self._interval_s]
        untold = self._untold + int(sum(self._last.pop(key)[1] for key in silent))
        self._untold = 0
        return untold


class EventLog:
    """Writes the log of refusals and of what goes with them; protocols write their lines through it, too.

    ``later`` calls something at the end of the reactor's turn, and what it returns can be cancelled: the lines of a
    turn are written together. What formats them is a lot of code, which is fetched into the processor's caches once
    then, and not between any two upgrades. Without it each line is written at once, and from `stop` on.
    """

    def __init__(self, form: AddressForm, now: Callable[[], float], later: Later | None = None) -> None:
        self._text = AddressFormatter(form)
        self._now = now
        self._limiter = LineLimiter()
        self._later = later
        self._call: IDelayedCall | None = None
        self._lines: list[Callable[[], None]] = []

    def tell(self, line: Callable[[], None]) -> None:
        """Have a line written at the end of the turn; see `pyryrelay.protocol.LineWriter`."""
        if self._later is None:
            line()
            return
        self._lines.append(line)
        if len(self._lines) >= MOST_LINES:
            self._write()
        elif self._call is None:
            self._call = self._later(self._end_turn)

    def _end_turn(self) -> None:
        self._call = None
        self._write()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        for line in lines:
            line()

    def stop(self) -> None:
        """Write what is to be written, and everything at once from now on."""
        self._later = None
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._write()

    def configure(self, form: AddressForm) -> None:
        """Log client addresses in this form from now on; a hash stays the same."""
        self._text.form = form

    @property
    def address_form(self) -> AddressForm:
        """How client addresses appear."""
        return self._text.form

    def address(self, client: ClientAddress | None) -> str:
        """Return a client address in the form that the operator chose."""
        return self._text(client)

    def note(self, key: Hashable, count: int = 1) -> int | None:
        """Note events that share a limit of lines; see `pyryrelay.protocol.LineWriter`."""
        return self._limiter.note(key, self._now(), count)

    def warn(self, warning: str) -> None:
        """Something that the operator should look at; one line."""
        _log.warn("{warning}", warning=warning)

    def sweep(self) -> None:
        """Sum up what was left out; once in `INTERVAL_S`."""
        count = self._limiter.sweep(self._now())
        if count:
            self.tell(lambda: _log.info("{count} more refusals and drops since the last lines about them", count=count))

    def refused(self, route: str | None, status: int, reason: str, client: ClientAddress | None) -> None:
        """An HTTP refusal was answered."""
        key = None if client is None else client.key
        left_out = self._limiter.note((key, reason), self._now())
        if left_out is not None:
            self.tell(
                lambda: _log.info(
                    "refused {client} {status} {reason} on {route} ({left_out} more left out)",
                    client=self._text(client),
                    status=status,
                    reason=str(reason),
                    route=route or "-",
                    left_out=left_out,
                )
            )

    def jailed(self, client: ClientAddress, seconds: float, times: int, *, with_network: bool = False) -> None:
        """An address was refused once too often, or the network around it.

        This line is never left out, however many others there are: it takes as many refusals as `--jail-after` says
        to cause one. Its end is that of the other lines, as fail2ban's filters have it.
        """
        text = self._text.network if with_network else self._text
        self.tell(
            lambda: _log.warn(
                "jailed {client} for {seconds} s, time {count} ({left_out} more left out)",
                client=text(client),
                seconds=round(seconds),
                count=times,
                left_out=0,
            )
        )

    def clients_hidden(self, client: ClientAddress, reason: str, warning: str) -> None:
        """Nearly all attempts come from one address that others are probably behind."""
        self.tell(
            lambda: _log.warn(
                "over 90 % of the upgrade attempts of the last minutes come from {client}, {reason}: all who are "
                "behind it share one quota. {warning}; `pyryrelay whoami` explains what is derived",
                client=self._text(client),
                reason=reason,
                warning=warning,
            )
        )

    def proxy_jailed(self, client: ClientAddress, reason: str, warning: str) -> None:
        """Somebody went to jail whom others are probably behind."""
        self.tell(
            lambda: _log.warn(
                "{client} is in jail, {reason}: all who are behind it are locked out. {warning}, and release it",
                client=self._text(client),
                reason=reason,
                warning=warning,
            )
        )
