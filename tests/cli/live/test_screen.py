"""The screen of ``pyryrelay top``, as rich draws it."""

from __future__ import annotations

import io

from rich.console import Console
from tests.support.command import Terminal
from tests.support.fake_relay import FakeRelay
from tests.support.status import status, workers

from pyryrelay.cli.admin_client import AdminClient
from pyryrelay.cli.live.screen import Screen, page
from pyryrelay.cli.live.watch import Watch


def drawn(watch: Watch) -> str:
    """Return what is on the screen, without colours."""
    stream = io.StringIO()
    Console(file=stream, width=100, color_system=None).print(page(watch))
    return stream.getvalue()


def test_the_page(relay: FakeRelay) -> None:
    """Open connections, rates, reasons, and the sections are on it; nothing is markup or controls the terminal."""
    watch = Watch(AdminClient(relay.url), status())
    assert "refused  -" in drawn(watch)
    relay.body = status(
        uptime_s=90_001.0, refused={"rate_limit": 60, "jailed": 7_000}, protocols={"[red]\x1b": {"a": 1}}
    )
    watch.look()
    text = drawn(watch)
    for part in (
        "pyryrelay 26.11.0, process 4242",
        "open",
        "92",
        "█",
        "10/s",
        "rate_limit",
        "[red]\\x1b",
        "jailed clients",
    ):
        assert part in text
    relay.status, relay.body = 500, {"error": "gone\x1b"}
    watch.look()
    assert "gone\\x1b" in drawn(watch)


def test_workers(relay: FakeRelay) -> None:
    """A relay of several processes has a row for each, with its share of a processor; one process has no table."""
    watch = Watch(AdminClient(relay.url), status())
    assert "restarts" not in drawn(watch)
    watch = Watch(AdminClient(relay.url), status(workers=workers()))
    later = workers()
    later[0] |= {"uptime_s": 90_001.0, "cpu_s": 60.5}
    later[1]["state"] = "[red]\x1b"
    relay.body = status(uptime_s=90_001.0, workers=later)
    watch.look()
    text = drawn(watch)
    assert "1 of 2 workers serve" in text
    assert "worker   pid  state" in text
    assert "50%" in text
    assert "[red]\\x1b" in text


def test_the_terminal_is_not_cleared(relay: FakeRelay) -> None:
    """Drawing again goes back to the corner and draws over what is there."""
    stream = Terminal()
    with Screen(stream) as screen:
        screen.draw(Watch(AdminClient(relay.url), status()))
    assert "process 4242" in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()
