"""What the dashboard shows of the Nostr relay."""

from __future__ import annotations

from tests.support.nostr_relay import World
from tests.support.panels import check_panel
from twisted.internet.defer import Deferred

from pyryrelay.nostr.mount import NOSTR
from pyryrelay.nostr.observe.figures import StoreFigures
from pyryrelay.nostr.observe.metrics import figures
from pyryrelay.nostr.observe.panel import PANEL


class Silent:
    """A log that writes nothing."""

    def store_opened(self, events: int, size_bytes: int, version: int) -> None:
        """Write nothing."""


def test_the_panel() -> None:
    """Its plots show figures that there are, and its words are explained."""
    world = World()
    store = StoreFigures(lambda: Deferred(), world.clock.callLater, Silent())
    check_panel(PANEL, figures(world.relay, store), NOSTR.refusal_words)
