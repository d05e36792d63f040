"""What every relay is built on, one of a single process and the supervisor of several: settings, clock and threads.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from pyryrelay.http.listener_context import HEAD_TIMEOUT_S
from pyryrelay.mounts import MountedSettings
from pyryrelay.preflight.inspection import of_settings
from pyryrelay.preflight.native import native_parts
from pyryrelay.preflight.report import report
from pyryrelay.runtime.monotonic import follow_monotonic_clock
from pyryrelay.runtime.periodic import Periodic

__all__ = ["Foundation", "Times"]


@dataclass(frozen=True, slots=True)
class Times:
    """The specification's times that are no options; tests shorten them."""

    head_timeout_s: float = HEAD_TIMEOUT_S
    message_timeout_s: float = 30.0
    ping_interval_s: float | None = None
    """None is `ConnectionSettings.ping_interval_s`."""
    pong_timeout_s: float = 30.0
    close_timeout_s: float = 5.0
    drain_s: float = 10.0


class Foundation:
    """See the module's docstring.

    Relative names of files count from ``base``, by default the current folder. ``warnings`` are told at the start, by
    default those of the settings.
    """

    def __init__(
        self,
        settings: MountedSettings,
        reactor: Any,
        now: Callable[[], float],
        times: Times,
        base: Path | None,
        warnings: Sequence[str] | None,
    ) -> None:
        self.settings = settings
        self._base = Path.cwd() if base is None else base
        if warnings is None:
            warnings = report([*of_settings(settings, self._base), *native_parts()], settings).warnings
        self._warnings = warnings
        self._reactor = reactor
        # Before anything is scheduled: timers must not wait until a wall clock that was set back has caught up.
        follow_monotonic_clock(reactor)
        self._now = now
        self._times = times
        self._periodic = Periodic(reactor)

    def _in_thread(self, call: Callable[[], Any]) -> Deferred[Any]:
        """Make a call in another thread, and return its result."""
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call)
