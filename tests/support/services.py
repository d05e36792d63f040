"""What a protocol is built with, on a clock that only the test moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from pyryrelay.observe.log import EventLog
from pyryrelay.protocol import Services


def services(clock: Clock, refused: Counter[tuple[str | None, str]] | None = None) -> Services:
    """Return services without threads: calls in a thread are made at once, and log lines are written at once."""
    counts = Counter() if refused is None else refused
    log = EventLog("full", clock.seconds)
    return Services(
        now=clock.seconds,
        call_later=clock.callLater,
        in_thread=lambda call: maybeDeferred(call),
        log=log,
        refused=lambda: counts,
        reload_failures=lambda: 0,
        start_child=start_no_child,
        start_shared=start_no_shared_child,
        strike=lambda client, reason: None,
        is_exempt=lambda client: False,
        agent=no_agent,
        base=Path(),
    )


def no_agent() -> NoReturn:
    """Make no requests: a test of a protocol that makes some brings a client."""
    raise AssertionError("an HTTP client was asked for")


def start_no_shared_child(name: str, received: Callable[[bytes], None], ended: Callable[[str], None]) -> NoReturn:
    """Start no shared child either."""
    raise AssertionError(f"a shared child was started: {name}")


def start_no_child(
    arguments: Sequence[str], received: Callable[[bytes], None], ended: Callable[[str], None]
) -> NoReturn:
    """Refuse to start a child: a test of a protocol that has some brings a way to start them."""
    raise AssertionError(f"a child was started: {arguments}")
